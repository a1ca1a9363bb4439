"""What people and programs are given to read: tables, figures and pages."""
