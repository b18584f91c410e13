"""A model with random weights in a file, opened once and run over folders again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ovsam_cli.benchmarking.settings import BenchSettings, PresetName
from ovsam_cli.labelling.journal import Journal
from ovsam_cli.labelling.labeller import build_labeller
from ovsam_cli.labelling.local_engine import LocalEngine
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.plan import RunPlan, plan_run
from ovsam_cli.labelling.run import Run, finish_run
from ovsam_cli.labelling.run_facts import build_facts
from ovsam_cli.labelling.run_files import RunSummary
from ovsam_cli.labelling.run_folder import prepare_output
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.labelling.text_embeddings import TextEmbeddings
from ovsam_cli.model.checkpoint import LoadedModel, build_ovsam
from ovsam_cli.model.config import PRESETS, OVSAMConfig
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.own_files import save_weights
from ovsam_cli.vocabulary import read_vocabulary

VOCABULARY = "coco"
SEED = 11
SMALL = OVSAMConfig(
    name="bench-small",
    model_size=256,
    embed_dim=32,
    grid_size=16,
    decoder_heads=4,
    decoder_mlp_dim=64,
    fpn_channels=(32, 64, 128, 256),
    fpn_dim=16,
    head_roi_size=4,
    clip_roi_size=4,
    text_dim=64,
    trained_on=("cat", "dog"),
    trunk_layers=(1, 1, 1, 1),
    trunk_width=8,
    trunk_heads=4,
    trunk_image_size=128,
    neck_dim=32,
    neck_depth=2,
    neck_heads=2,
    neck_window=7,
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Random weights and random text embeddings of the vocabulary `coco`, on disk."""

    config: OVSAMConfig
    weights: Path
    text_embeddings: Path

    def request(self, photos: Path, out: Path, settings: BenchSettings) -> LabelRequest:
        """What `ovsam label` is asked for, without prompts and options yet."""
        return LabelRequest(
            images=(str(photos),),
            vocabulary=VOCABULARY,
            out=out,
            model=str(self.weights),
            devices=str(settings.device),
            text_embeddings=self.text_embeddings,
        )


def find_config(preset: PresetName) -> OVSAMConfig:
    """The sizes behind a preset's name."""
    return SMALL if preset == "small" else PRESETS[preset]


def build_model(config: OVSAMConfig) -> OVSAM:
    """A model of random weights, the same ones every time, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build_ovsam(config).eval().requires_grad_(False)


def write_model(config: OVSAMConfig, folder: Path) -> ModelFiles:
    """Write random weights, the same ones every time, and text embeddings of unit length.

    What the folder has already is left as it is.
    """
    weights = folder / f"{config.name}.safetensors"
    text_embeddings = folder / f"{config.name}.names.safetensors"
    files = ModelFiles(config, weights, text_embeddings)
    if text_embeddings.exists():
        return files
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(build_model(config).state_dict(), config, weights, license_notice="random weights")
    names = read_vocabulary(VOCABULARY).names
    rng = np.random.default_rng(SEED)
    array = rng.normal(size=(len(names), 1, config.text_dim)).astype(np.float32)
    array /= np.linalg.norm(array, axis=2, keepdims=True)
    TextEmbeddings(array, names, text_hash="random", text_tower=config.text_tower).save(
        text_embeddings
    )
    return files


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A loaded model that labels one folder after another without loading anew."""

    loaded: LoadedModel
    labeller: Labeller

    @classmethod
    def open(cls, request: LabelRequest) -> ReadyModel:
        """Load the model of a request, whose images are not looked at."""
        loaded, labeller = build_labeller(plan_run(request), on_message=lambda text: None)
        return cls(loaded, labeller)

    def label(self, plan: RunPlan) -> RunSummary:
        """Label a plan's images into its folder, which must be new: files to files."""
        labeller = replace(self.labeller, options=plan.request.options)
        engine = LocalEngine(labeller, build_facts(plan, self.loaded, labeller))
        out = plan.request.out
        with (
            prepare_output(out) as lock,
            Journal.open(out, engine.facts.fingerprint, lock=lock) as journal,
        ):
            run = Run(plan, engine, plan.records, journal)
            return finish_run(run, on_image_done=lambda result: None)
