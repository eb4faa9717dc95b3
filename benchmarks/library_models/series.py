"""Time series and tables: Hugging Face's forecasters, darts, gluonts, pytorch-forecasting, pytorch-tabnet."""

from __future__ import annotations

from typing import Any

import torch

from library_models.registry import Built, entry, family

_SERIES = {"prediction_length": 12, "context_length": 24, "lags_sequence": [1, 2, 3], "num_time_features": 2,
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}  # fmt: skip


def _past() -> dict[str, torch.Tensor]:
    past = 24 + 3
    return {
        "past_values": torch.rand(2, past),
        "past_time_features": torch.rand(2, past, 2),
        "past_observed_mask": torch.ones(2, past),
        "future_values": torch.rand(2, 12),
        "future_time_features": torch.rand(2, 12, 2),
    }


HUGGING_FACE: dict[str, Any] = {
    "time_series_transformer": ("TimeSeriesTransformerForPrediction", "TimeSeriesTransformerConfig", _SERIES, _past),
    "informer": ("InformerForPrediction", "InformerConfig", _SERIES, _past),
    "autoformer": ("AutoformerForPrediction", "AutoformerConfig", {**_SERIES, "label_length": 6,
        "moving_average": 5}, _past),
    "patchtst": ("PatchTSTForPrediction", "PatchTSTConfig", {"context_length": 64, "prediction_length": 12,
        "d_model": 32, "num_hidden_layers": 2, "ffn_dim": 64, "num_input_channels": 3, "patch_length": 8,
        "patch_stride": 8}, lambda: {"past_values": torch.zeros(2, 64, 3)}),
    "patchtsmixer": ("PatchTSMixerForPrediction", "PatchTSMixerConfig", {"context_length": 64,
        "prediction_length": 12, "d_model": 16, "num_layers": 2, "num_input_channels": 3, "patch_length": 8,
        "patch_stride": 8}, lambda: {"past_values": torch.zeros(2, 64, 3)}),
}  # fmt: skip


@family("transformers", HUGGING_FACE, prefix="series_")
def hugging_face(name: str) -> Built:
    import transformers

    kind, configuration, options, inputs = HUGGING_FACE[name]
    return getattr(transformers, kind)(getattr(transformers, configuration)(**options)).eval(), inputs()


DARTS: dict[str, Any] = {
    "TCN": ("tcn_model", "_TCNModule", {
        "kernel_size": 3, "num_filters": 8, "num_layers": None, "dilation_base": 2, "weight_norm": False,
        "target_length": 6}),
    "NBEATS": ("nbeats", "_NBEATSModule", {
        "generic_architecture": True, "num_stacks": 2, "num_blocks": 1, "num_layers": 2, "layer_widths": [16, 16],
        "expansion_coefficient_dim": 5, "trend_polynomial_degree": 2, "batch_norm": False, "activation": "ReLU"}),
    "NLinear": ("nlinear", "_NLinearModule", {"shared_weights": False, "const_init": True, "normalize": True}),
    "DLinear": ("dlinear", "_DLinearModule", {"kernel_size": 5, "shared_weights": False, "const_init": True}),
    "BlockRNN": ("block_rnn_model", "_BlockRNNModule", {"hidden_dim": 16, "num_layers": 2, "name": "LSTM"}),
    "Transformer": ("transformer_model", "_TransformerModule", {
        "d_model": 16, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 2, "dim_feedforward": 32,
        "activation": "relu"}),
    "TiDE": ("tide_model", "_TideModule", {
        "num_encoder_layers": 2, "num_decoder_layers": 2, "decoder_output_dim": 4, "hidden_size": 16,
        "temporal_decoder_hidden": 8, "temporal_width_past": 4, "temporal_width_future": 4, "use_layer_norm": True}),
    "TSMixer": ("tsmixer_model", "_TSMixerModule", {
        "hidden_size": 16, "ff_size": 16, "num_blocks": 2, "activation": "ReLU", "norm_type": "LayerNorm",
        "normalize_before": True, "project_first_layer": True}),
}  # fmt: skip

#: What several of them take: chunks of 24 and 6 steps, two series, no covariates.
_DARTS = {
    "input_chunk_length": 24, "output_chunk_length": 6, "output_chunk_shift": 0, "train_sample_shape": None,
    "input_dim": 2, "output_dim": 2, "input_size": 2, "output_size": 2, "target_size": 2, "nr_params": 1,
        "dropout": 0.0,
    "past_cov_dim": 0, "future_cov_dim": 0, "static_cov_dim": 0, "use_reversible_instance_norm": False,
}  # fmt: skip


@family("darts", DARTS)
def darts(name: str) -> Built:
    import importlib
    import inspect

    from darts.utils.data.torch_datasets.utils import PLModuleInput

    file, kind, options = DARTS[name]
    module = getattr(importlib.import_module(f"darts.models.forecasting.{file}"), kind)
    known: dict[str, Any] = {}
    for base in module.__mro__:
        if "__init__" in vars(base):
            known |= dict(inspect.signature(base.__init__).parameters)

    class OnSeries(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = module(**{k: v for k, v in (_DARTS | options).items() if k in known})

        def forward(self, past: torch.Tensor) -> Any:
            return self.model(PLModuleInput(past_target=past))

    return OnSeries().eval(), torch.zeros(2, 24, 2)


@entry("gluonts", "deepar")
def deepar() -> Built:
    from gluonts.torch.model.deepar.module import DeepARModel

    model = DeepARModel(
        freq="h", context_length=24, prediction_length=6, num_feat_dynamic_real=1, num_feat_static_real=1,
        num_feat_static_cat=1, cardinality=[4], hidden_size=16, num_layers=2, lags_seq=[1, 2], num_parallel_samples=5,
    )  # fmt: skip
    past = 24 + 2
    inputs = {
        "feat_static_cat": torch.zeros(1, 1, dtype=torch.long), "feat_static_real": torch.zeros(1, 1),
        "past_time_feat": torch.zeros(1, past, 1), "past_target": torch.rand(1, past),
        "past_observed_values": torch.ones(1, past), "future_time_feat": torch.zeros(1, 6, 1),
    }  # fmt: skip
    return model.eval(), inputs


@entry("gluonts", "simple_feed_forward")
def feed_forward() -> Built:
    from gluonts.torch.model.simple_feedforward.module import SimpleFeedForwardModel

    model = SimpleFeedForwardModel(prediction_length=6, context_length=24, hidden_dimensions=[16, 16])
    return model.eval(), torch.rand(2, 24)


@entry("pytorch-forecasting", "temporal_fusion_transformer", executed=True)
def temporal_fusion() -> Built:
    from pytorch_forecasting.metrics import QuantileLoss
    from pytorch_forecasting.models import TemporalFusionTransformer

    reals = ["a", "b"]
    model = TemporalFusionTransformer(
        hidden_size=16, lstm_layers=1, attention_head_size=2, output_size=7, hidden_continuous_size=8, x_reals=reals,
            loss=QuantileLoss(), output_transformer=lambda out: out["prediction"],
        time_varying_reals_encoder=reals, time_varying_reals_decoder=["a"], x_categoricals=[],
    )  # fmt: skip
    inputs = {
        "encoder_lengths": torch.tensor([20, 14]), "decoder_lengths": torch.tensor([6, 6]),
        "encoder_cat": torch.zeros(2, 20, 0, dtype=torch.long), "decoder_cat": torch.zeros(2, 6, 0, dtype=torch.long),
        "encoder_cont": torch.rand(2, 20, 2), "decoder_cont": torch.rand(2, 6, 2),
        "target_scale": torch.ones(2, 2),
    }  # fmt: skip
    return model.eval(), (inputs,)


@entry("pytorch-forecasting", "nhits")
def nhits() -> Built:
    from pytorch_forecasting.models.nhits.sub_modules import NHiTS

    model = NHiTS(
        context_length=24, prediction_length=6, output_size=[1], encoder_covariate_size=0, decoder_covariate_size=0,
            static_size=0, naive_level=True,
            static_hidden_size=8,
        n_blocks=[1, 1], n_layers=[2, 2], hidden_size=[[16, 16], [16, 16]], pooling_sizes=[2, 2],
            downsample_frequencies=[2, 1],
        pooling_mode="max", interpolation_mode="linear", dropout=0.0, activation="ReLU",
            initialization="lecun_normal",
        batch_normalization=False, shared_weights=False,
    )  # fmt: skip
    return model.eval(), (
        torch.zeros(2, 24, 1),
        torch.ones(2, 24),
        torch.zeros(2, 24, 0),
        torch.zeros(2, 6, 0),
        torch.zeros(2, 0),
    )


@entry("pytorch-tabnet", "tabnet")
def tabnet() -> Built:
    from pytorch_tabnet.tab_network import TabNet

    return TabNet(16, 2, group_attention_matrix=torch.eye(16)).eval(), torch.zeros(256, 16)
