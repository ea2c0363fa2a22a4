"""The compute type: chosen by timing or set by hand, recorded, and with similar answers in both types."""

import dataclasses

import pytest
import torch

import train_space
from adapter_arena import results, settings
from adapter_arena.errors import RecipeError, SettingError
from adapter_arena.models import bases, compute, loading
from adapter_arena.recipe import of_results
from adapter_arena.serve.engine import Engine
from adapter_arena.train import arguments, callbacks, checkpoints, run

TEXTS = ["The acting is superb .", "A bore from start to finish ."]


@pytest.fixture
def cpu_of(monkeypatch):
    """Return a function that sets the seconds of this machine's products."""
    monkeypatch.delenv("ARENA_COMPUTE", raising=False)

    def seconds(bf16: float, fp32: float) -> None:
        monkeypatch.setattr(compute, "cpu_seconds", lambda: {"bf16": bf16, "fp32": fp32})

    return seconds


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is not timed")
@pytest.mark.parametrize(("bf16", "fp32", "chosen"), [(1.0, 2.0, "bf16"), (7.0, 1.0, "fp32")])
def test_the_faster_type_is_chosen(cpu_of, bf16, fp32, chosen):
    cpu_of(bf16, fp32)
    assert compute.name_of(compute.choose()) == chosen
    assert compute.name_of(compute.choose("auto")) == chosen
    assert compute.describe(compute.choose()).startswith(f"computes in {chosen}: ")


def test_both_types_are_timed_once_by_the_threads_own_clock():
    first = compute.cpu_seconds()
    assert first.keys() == compute.TYPES.keys()
    assert all(0 < seconds < 1 for seconds in first.values())
    assert compute.cpu_seconds() is first


def test_a_setting_and_a_flag_override_the_choice(cpu_of, monkeypatch, recipe_for):
    cpu_of(7.0, 1.0)
    monkeypatch.setenv("ARENA_COMPUTE", "bf16")
    assert compute.choose() == torch.bfloat16
    assert arguments.compute_type(recipe_for("lora")) == torch.bfloat16
    assert arguments.compute_type(recipe_for("lora", precision="fp32")) == torch.float32


@pytest.mark.parametrize("value", ["fp16", "int8", "float32"])
def test_an_unknown_type_in_the_setting_is_one_line_with_the_choices(monkeypatch, value):
    monkeypatch.setenv("ARENA_COMPUTE", value)
    with pytest.raises(SettingError, match=f"ARENA_COMPUTE should be 'auto', 'bf16' or 'fp32', not '{value}'"):
        settings.check()


def test_an_unknown_type_on_the_command_line_is_one_line_with_the_choices(capsys):
    assert train_space.main(["--dataset", "sample", "--precision", "int8", "--dry-run"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "precision should be 'auto', 'bf16' or 'fp32', not 'int8'" in line


def test_an_architecture_that_cannot_run_in_bf16_computes_in_fp32(tiny, monkeypatch):
    deberta = bases.Base("x", "deberta-v2")
    assert compute.type_for(deberta, "nf4", torch.bfloat16) == torch.float32
    assert compute.type_for(tiny, "nf4", torch.bfloat16) == torch.bfloat16
    assert compute.type_for(tiny, "fp32", torch.bfloat16) == torch.float32


@pytest.mark.parametrize("merged_mb", [0, None])
def test_an_adapter_trained_in_one_type_answers_alike_in_both(trained, tiny, merged_mb):
    found = {}
    for name, dtype in compute.TYPES.items():
        engine = Engine(tiny, dtype=dtype, merged_mb=merged_mb)
        adapter = engine.add_folder(trained)
        assert engine.merge(adapter.name) == (merged_mb is None)
        assert engine.model.compute_dtype == engine.dtype == dtype
        found[name] = torch.tensor([list(answer.scores.values()) for answer in engine.predict(TEXTS)])
        engine.close()
    torch.testing.assert_close(found["bf16"], found["fp32"], atol=0.02, rtol=0)
    assert not torch.equal(found["bf16"], found["fp32"])  # they are computed in different types


def test_fp32_keeps_the_base_in_four_bits_and_its_embeddings_in_sixteen(tiny):
    model = loading.load_model(tiny, dtype=torch.float32)
    body = model.bert
    assert body.encoder.layer[0].attention.self.query.weight.dtype == torch.uint8
    assert body.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    assert body.embeddings.word_embeddings(torch.tensor([1])).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    with compute.autocast(model):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", compute.TYPES)
def test_results_and_card_name_the_compute_type(work, recipe_for, name):
    folder = run.train(recipe_for("lora", precision=name))
    found = results.read(folder)
    assert (found.training.compute, found.evaluation.compute) == (name, name)
    assert found.training.stages == []
    assert f"| computed in | {name} |" in (folder / "README.md").read_text()


def test_a_run_resumed_on_another_machine_continues_and_the_results_name_both(work, recipe_for, cpu_of, capsys):
    cpu_of(1.0, 2.0)
    recipe = recipe_for("lora", n_train=320, epochs=2)  # 40 steps an epoch, checkpoints at 25, 50, 75
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_epoch_end", _interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            run.train(recipe)
    cpu_of(7.0, 1.0)
    folder = run.train(recipe, resume=True)
    assert "resumed on another machine: fp32 on " in capsys.readouterr().out
    found = results.read(folder)
    assert [(stage.step, stage.compute) for stage in found.training.stages] == [(0, "bf16"), (25, "fp32")]
    assert found.training.compute == found.evaluation.compute == "fp32"
    assert "| from step 25 on | fp32, " in (folder / "README.md").read_text()


def _interrupt(self, args, state, control, **kwargs):
    raise KeyboardInterrupt


def test_a_type_chosen_by_hand_is_part_of_the_run_that_is_resumed(work, recipe_for):
    with pytest.raises(KeyboardInterrupt), checkpoints.run_folder(recipe_for("lora", precision="fp32"), resume=False):
        raise KeyboardInterrupt
    with (
        pytest.raises(RecipeError, match="was started with another precision"),
        checkpoints.run_folder(recipe_for("lora", precision="bf16"), resume=True),
    ):
        pass


def test_results_from_before_the_choice_repeat_in_the_faster_type(trained, tmp_path):
    """Every recipe in them has `precision: bf16`, chosen or not."""
    found = results.read(trained)
    found.recipe["precision"] = "bf16"
    content = dataclasses.asdict(found)
    assert of_results(content)["precision"] == "bf16"
    del content["training"]["compute"]
    assert of_results(content)["precision"] == "auto"
