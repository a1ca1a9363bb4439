"""The label loop in a browser: answers on disk, which image comes next, training as processes, and the page.

Knows a run only by its files and starts verbs only as processes, so it imports neither torch nor `runs` nor `verbs`.
Imports `reporting` for pages, `recipe` for its YAML reader, `data.labels`, `ops` for randomness, and `system`. The only
room that imports Starlette and uvicorn.
"""
