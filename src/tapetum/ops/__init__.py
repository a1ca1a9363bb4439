"""Operations on tensors that several methods share: randomness, collectives, precision, soft neighbours."""
