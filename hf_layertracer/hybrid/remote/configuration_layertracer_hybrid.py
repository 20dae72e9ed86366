"""Configuration of a decoder whose layers mix tokens by attention, Mamba2 or a gated delta net.

This file is published beside the weights of such models: it needs transformers and nothing else.
"""

from __future__ import annotations

from transformers import PreTrainedConfig


class LayerTracerHybridConfig(PreTrainedConfig):
    """Configuration of a [`LayerTracerHybridForCausalLM`].

    Args:
        decoder_type (`str`, *optional*, defaults to `"llama"`):
            Whose attention, feed-forward block and norm the layers have: `"llama"`, `"mistral"`, `"qwen2"` or `"qwen3"`.
        mixer_types (`list[str]`, *optional*):
            What mixes the tokens in each layer: `"attention"`, `"mamba2"` or `"gated_deltanet"`; all attention by default.
        layer_types (`list[str]`, *optional*): The same for the library's cache; follows from `mixer_types`.
        mamba_n_heads, mamba_n_groups, mamba_d_head, mamba_d_state, mamba_d_conv, mamba_expand (*optional*):
            Sizes of the Mamba2 mixers, as in `GraniteMoeHybridConfig`.
        linear_num_key_heads, linear_num_value_heads, linear_key_head_dim, linear_value_head_dim, linear_conv_kernel_dim
            (*optional*): Sizes of the gated delta nets, as in `Qwen3_5TextConfig`.
        kwargs: All other fields are those of the decoder's own configuration.
    """

    model_type = "layertracer_hybrid"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False
    rope_parameters: dict | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    mlp_bias: bool = False
    sliding_window: int | None = None

    decoder_type: str = "llama"
    mixer_types: list[str] | tuple[str, ...] = ()
    layer_types: list[str] | tuple[str, ...] = ()

    mamba_n_heads: int = 32
    mamba_n_groups: int = 32
    mamba_d_head: int = 128
    mamba_d_state: int = 128
    mamba_d_conv: int = 4
    mamba_expand: float = 1.0
    mamba_chunk_size: int = 256
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = True
    time_step_limit: tuple[float, ...] | list[float] = (0.0, float("inf"))

    linear_num_key_heads: int = 32
    linear_num_value_heads: int = 32
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_conv_kernel_dim: int = 4

    def __post_init__(self, **kwargs):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        self.mixer_types = list(self.mixer_types) or ["attention"] * self.num_hidden_layers
        self.time_step_limit = tuple(self.time_step_limit)
        self.layer_types = [
            "full_attention" if mixer == "attention" else "linear_attention" for mixer in self.mixer_types
        ]
        super().__post_init__(**kwargs)


LayerTracerHybridConfig.register_for_auto_class()

__all__ = ["LayerTracerHybridConfig"]
