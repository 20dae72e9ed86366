"""What the words on a page mean, in a sentence each."""

from __future__ import annotations


GLOSSARY = {
    "Layer Sensitivity": "How far the model's output moves when this layer's output is perturbed: Jensen-Shannon "
    "divergence in bits, from 0 (nothing changes) to 1.",
    "standard error": "How far the value would scatter if it were measured again with other probes and perturbations.",
    "vulnerable layer": "The layer whose perturbation moves the output most.",
    "contender": "A layer that may be as vulnerable: it differs from the vulnerable layer by less than two standard errors.",
    "lens probability": "The probability of the right answer if the model stopped after this layer, read with its own "
    "final norm and head.",
    "Task Particle": "The first layer at which the probability of the right answer rises by a tenth of its maximum: "
    "where the model begins to execute the task.",
    "Task Particle, max-ratio rule": "The layer at which the probability of the model's own final answer changes most in "
    "proportion (arXiv 2605.11416).",
    "context sensitivity": "How much a layer adds to the divergence between what the model would say with the whole prompt "
    "and with a part of it blanked.",
    "interval": "The range that holds the median in 95 % of bootstrap samples of the probes.",
    "unresolved": "A probe whose right answer never becomes probable enough to have a Task Particle.",
    "probe": "A prompt and the text that should follow it; its first token is what is looked for.",
    "kind of layer": "What mixes the tokens in this layer, such as full or linear attention.",
    "trained": "The optimizer updates the parameters of this layer.",
    "frozen": "The parameters of this layer stay as they are; it needs no gradients of weights and no optimizer state.",
    "plan": "For every layer, train or freeze, with the reason and what it saves.",
    "trainable parameters": "Parameters that the optimizer updates.",
    "optimizer memory": "Adam's two moments in float32: eight bytes for each trainable parameter.",
    "gradients": "One value for each trainable parameter, in the parameters' data type.",
    "FLOPs per token": "Matrix products of one training step in the text decoder, forward and backward, with all experts of "
    "a layer; attention scores are left out.",
    "accuracy": "Fraction of the probes whose right answer is the model's likeliest next token.",
    "mean log-probability": "Mean natural logarithm of the probability of the right answers; 0 would be certainty.",
    "relative depth": "Layers as a fraction of all layers, so that models of different depth lie over each other: 0 is "
    "the embedding, 1 the last layer.",
    "shallow minus deep": "Mean Layer Sensitivity of the first half of the layers minus that of the second half; the "
    "middle layer of an odd depth is in neither.",
    "block influence": "How far a layer turns the hidden state: 1 minus the cosine similarity of its input and output.",
    "likeliest token": "What the model would say next if it stopped after this layer.",
    "held-out loss": "Mean loss on text that was not trained on, in nats per token; lower is better.",
}
