from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from qiskit_qattn.errors import CheckpointError, ConfigError, RunFolderError
from qiskit_qattn.evaluation.comparison.plan import NAME, load_study, open_study
from qiskit_qattn.evaluation.comparison.study import Cell, Study

Plan = Callable[..., Study]


def test_cells_are_pairs_of_kinds_under_one_seed(plan: Plan):
    study = plan("qisa,rff", seeds=2, seed=7)
    assert [cell.name for cell in study.cells()] == [
        *("classical-s7", "qisa-s7", "rff-s7", "classical-s8", "qisa-s8", "rff-s8")
    ]
    configs = [study.cell_config(Cell(7, kind)) for kind in study.kinds]
    assert [config.model.heads for config in configs] == ["classical:1", "qisa:1", "rff:1"]
    own = {"heads", "n_inner", "out"}
    shared = [{name: v for name, v in config.to_dict().items() if name not in own} for config in configs]
    assert shared[0] == shared[1] == shared[2]


def test_results_do_not_depend_on_how_many_run_at_a_time(plan: Plan):
    assert plan().config.threads == 1
    assert plan(threads=3).config.threads == 3


def test_what_a_comparison_has_no_use_for_is_left_to_the_preset(plan: Plan):
    assert plan(heads="classical:1", temperature=0.5, top_k=3, sample_tokens=9) == plan()


def test_a_study_is_found_again(plan: Plan):
    study = plan(seeds=2)
    assert open_study(study) == study
    written = (study.folder / NAME).stat().st_mtime_ns
    assert open_study(study) == study
    assert load_study(study.folder) == study
    assert (study.folder / NAME).stat().st_mtime_ns == written


def test_a_study_grows_by_kinds_and_seeds(plan: Plan):
    first = open_study(plan(seeds=2, seed=3))
    grown = open_study(plan("rff,quadratic", seeds=2, seed=4))
    assert grown.kinds == ("classical", "qisa", "rff", "quadratic")
    assert grown.seeds == (3, 4, 5)
    assert {kind: grown.sizes[kind] for kind in first.kinds} == first.sizes
    assert [grown.cell_config(cell) for cell in first.cells()] == [first.cell_config(cell) for cell in first.cells()]
    assert load_study(grown.folder) == grown
    assert open_study(plan(seeds=1, seed=4)) == grown
    assert "--kinds classical,qisa,rff,quadratic --seeds 3" in grown.command()


def test_another_plan_is_refused_in_one_line(plan: Plan):
    open_study(plan(seeds=2))
    for changes, told in [
        ({"seeds": 2, "seed": 3}, "seeds 0 to 1, which 3 does not continue"),
        ({"seeds": 2, "reference": "qisa", "kinds": "classical"}, "reference = classical, not qisa"),
        ({"seeds": 2, "max_steps": 13}, "max_steps = 12, not 13"),
        ({"seeds": 3, "kinds": "rff", "n_inner": 30}, "n_inner = 0, not 30"),
    ]:
        before = load_study(plan(seeds=2).folder)
        with pytest.raises(RunFolderError) as caught:
            open_study(plan(**changes))
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "qattn compare --kinds classical,qisa --seeds 2" in str(caught.value)
        assert load_study(before.folder) == before


def test_a_kind_is_not_added_under_another_name(plan: Plan):
    open_study(plan("qisa"))
    for other in ("qisa-v3", "qisa:1"):
        with pytest.raises(ConfigError, match=f"one kind twice: qisa and {other}"):
            open_study(plan(other))


def test_a_folder_with_something_else_is_left_alone(plan: Plan):
    study = plan()
    study.folder.mkdir()
    (study.folder / "mine").write_text("x")
    with pytest.raises(RunFolderError, match="no study"):
        open_study(study)
    assert [path.name for path in study.folder.iterdir()] == ["mine"]
    with pytest.raises(RunFolderError, match="no study"):
        load_study(study.folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "qiskit-qattn/study"}'])
def test_a_damaged_plan_is_refused(plan: Plan, content: str):
    study = plan()
    open_study(study)
    (study.folder / NAME).write_text(content)
    with pytest.raises(CheckpointError, match=NAME):
        open_study(study)


def test_a_plan_that_lost_a_part_is_refused(plan: Plan):
    study = plan()
    open_study(study)
    record = json.loads((study.folder / NAME).read_text())
    for name in ("kinds", "config", "sizes", "text"):
        (study.folder / NAME).write_text(json.dumps({k: v for k, v in record.items() if k != name}))
        with pytest.raises(CheckpointError, match=name):
            load_study(study.folder)


def test_a_study_needs_a_seed(plan: Plan):
    with pytest.raises(ConfigError, match="--seeds is 0"):
        plan(seeds=0)


def test_a_study_whose_own_heads_are_the_presets_is_read(plan: Plan):
    """As earlier releases wrote it: the heads of its settings, which no cell has, do not fit ``n_head``."""
    study = plan()
    open_study(study)
    record = json.loads((study.folder / NAME).read_text())
    record["config"]["heads"] = "qisa:2,classical:2"
    (study.folder / NAME).write_text(json.dumps(record))
    assert load_study(study.folder) == study
    assert open_study(plan()) == study
