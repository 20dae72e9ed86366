"""The first weights of new token mixers, made from the attention that they replace."""
