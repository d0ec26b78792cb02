"""``[learn]``: what cannot work is refused when it is read, with the reason, and what can is taken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from robotsac.config import LearnConfig, load_config, load_learner_settings
from robotsac.config.entropy import SIGMA_MAX, squashed_sigma, widest_sigma
from robotsac.config.learn import ALPHA_MAX, BETA_SIGMA_MIN, ENSEMBLE, UPDATES_PER_STEP_MAX
from robotsac.errors import ConfigError

CORRECTED = {"correction": "symplectic", "activation": "silu", "smooth_time": 0.0}
DDPG, V1, SCORE = {"variant": "ddpg"}, {"variant": "sac_v1"}, {"policy_gradient": "score"}
BATCH_NORM = {"critic": "batch_norm"}
PRIOR = {"prior_data": ["runs/one"]}


@pytest.mark.parametrize(
    "learn",
    [
        {},
        {"temperature": 0.2},
        {"head": "mixture"},
        {"head": "beta"},
        SCORE,
        SCORE | {"head": "beta"},
        V1,
        V1 | {"temperature": 0.2, "head": "mixture"},
        V1 | SCORE,
        V1 | {"critics": 1},
        V1 | {"critics": 4, "critic_subset": 4},
        DDPG,
        DDPG | {"critics": 1},
        DDPG | {"smooth_time": 0.1, "smooth_space": 0.1},
        CORRECTED,
        CORRECTED | {"correction": "consensus", "activation": "tanh"},
        CORRECTED | {"temperature": 0.2, "n_step": 3},
        {"critics": 10, "updates_per_step": 20.0, "actor_delay": 20},
        {"critic_dropout": 0.01, "updates_per_step": 20.0},
        BATCH_NORM,
        {"n_step": 20, "smooth_time": 0.1, "smooth_space": 0.1},
        PRIOR | {"prior_share": 0.1},
        PRIOR | V1,
        PRIOR | DDPG | {"n_step": 3},
    ],
)
def test_what_can_work_is_taken(learn: dict[str, Any]) -> None:
    given = LearnConfig.model_validate(learn).model_dump()
    assert {key: given[key] for key in learn} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in learn.items()
    }


def refusal(learn: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        LearnConfig.model_validate(learn)
    return str(caught.value)


@pytest.mark.parametrize(
    ("learn", "reason"),
    [
        (DDPG | {"head": "mixture"}, "'ddpg' has a deterministic actor: leave head alone"),
        (DDPG | {"head": "beta"}, "'ddpg' has a deterministic actor"),
        (DDPG | SCORE, "'ddpg' has no score function"),
        (DDPG | {"temperature": 0.2}, "'ddpg' has no entropy and so no temperature"),
        (DDPG | {"critics": 10}, "'ddpg' takes the minimum over all its critics"),
        (DDPG | {"critic_dropout": 0.1}, "critic_dropout is for variant 'sac'"),
        (DDPG | BATCH_NORM, "critic 'batch_norm' is for variant 'sac' alone"),
        (V1 | {"critics": 3}, "'sac_v1' takes the minimum over all its critics"),
        (V1 | {"critic_dropout": 0.1}, "critic_dropout is for variant 'sac'"),
        (V1 | BATCH_NORM, "critic 'batch_norm' is for variant 'sac' alone"),
        (BATCH_NORM | {"critic_dropout": 0.1}, "critic_dropout is for variant 'sac' with critic 'mlp'"),
        ({"critics": 4, "critic_subset": 5}, "critic_subset 5 is more than the 4 critics"),
        ({"log_std_min": 1.0, "log_std_max": 1.0}, "must be below log_std_max"),
    ],
)
def test_options_that_do_not_fit_the_variant_are_refused_with_the_reason(learn: dict[str, Any], reason: str) -> None:
    assert reason in refusal(learn)


@pytest.mark.parametrize(
    ("learn", "reason"),
    [
        (DDPG, "is for the games of 'sac' and 'sac_v1'"),
        (BATCH_NORM, "with critic 'mlp'"),
        (SCORE, "reparameterised"),
        ({"critic_dropout": 0.1}, "knows no critic_dropout"),
        ({"critics": 10}, "random critic_subset"),
        ({"actor_delay": 2}, "actor_delay"),
        ({"smooth_time": 0.1}, "smoothness term: set smooth_time and smooth_space to 0"),
        ({"smooth_space": 0.1}, "smoothness term"),
        ({"activation": "relu"}, "'relu' has none: activation must be 'silu' or 'tanh'"),
        ({"head": "beta"}, "head 'beta' has none"),
    ],
)
@pytest.mark.parametrize("kind", ["consensus", "symplectic"])
def test_a_correction_is_refused_where_its_game_is_not_the_one_that_is_played(
    kind: str, learn: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(CORRECTED | {"correction": kind} | learn)
    if learn.get("head") != "beta":  # and without it there is nothing wrong
        LearnConfig.model_validate(learn)


@pytest.mark.parametrize(
    ("learn", "limit"),
    [
        ({"log_std_max": 2000.0}, "less than or equal to 2"),
        ({"log_std_min": -200.0}, "greater than or equal to -20"),
        ({"temperature_init": 1e-9}, "greater than or equal to"),
        ({"temperature_init": 100.0}, f"less than or equal to {ALPHA_MAX:g}"),
        ({"seed": 2**63}, "less than"),
        ({"updates_per_step": 1e6}, "less than or equal to 64"),
        ({"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_what_float32_or_a_generator_cannot_hold_is_refused_with_its_limit(learn: dict[str, Any], limit: str) -> None:
    assert limit in refusal(learn) and next(iter(learn)) in refusal(learn)


def test_a_horizon_that_leaves_no_discount_or_has_no_effect_is_refused() -> None:
    assert "has no effect beside discount 0.99" in refusal({"discount": 0.99, "horizon_s": 2.0})
    assert LearnConfig.model_validate({"discount": "from_horizon", "horizon_s": 2.0}).horizon_s == 2.0
    with pytest.raises(ConfigError) as caught:
        load_config("arm0-sim", overrides=["learn.horizon_s=0.02"])
    assert "not longer than one control step of 0.02 s" in caught.value.reason
    assert load_config("arm0-sim", overrides=["learn.horizon_s=0.021"]).learn.horizon_s == 0.021


def test_the_relative_path_of_prior_data_is_that_of_the_folder_it_was_said_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/my.toml").write_text('[learn]\nprior_data = ["../runs/one", "/abs/two"]\n')
    monkeypatch.chdir(tmp_path)
    from_file = load_learner_settings([Path("configs/my.toml")]).learn.prior_data
    assert from_file == (str(tmp_path / "runs/one"), "/abs/two")
    typed = load_learner_settings(overrides=["learn.prior_data=['runs/one']"]).learn.prior_data
    assert typed == (str(tmp_path / "runs/one"),)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learn.temperature=-1", "learn.temperature: input should be 'auto' or greater than 0 (given: -1)"),
        ("learn.discount=1.5", "learn.discount: input should be 'from_horizon' or less than 1 (given: 1.5)"),
        ("learn.threads=x", "learn.threads: input should be a valid integer (given: 'x')"),
    ],
)
def test_a_value_of_one_kind_or_another_is_one_mistake_and_in_one_line(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_learner_settings(overrides=[override, "learn.hidden=0"])
    assert words in caught.value.reason.splitlines() and "2 mistakes" in caught.value.message


# --- target entropy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["gaussian", "mixture", "beta"])
@pytest.mark.parametrize("variant", ["sac", "sac_v1"])
def test_more_entropy_than_uniform_actions_have_is_refused(head: str, variant: str) -> None:
    chosen = {"head": head, "variant": variant}
    assert "uniform actions have 0.69 nat" in refusal(chosen | {"target_sigma": SIGMA_MAX})


@pytest.mark.parametrize("head", ["mixture", "beta"])  # what a tanh-Gaussian cannot reach, see below
def test_nearly_the_entropy_of_uniform_actions_is_taken(head: str) -> None:
    assert LearnConfig.model_validate({"head": head, "target_sigma": 0.999 * SIGMA_MAX})


def test_less_entropy_than_the_narrowest_policy_has_is_refused() -> None:
    least = squashed_sigma(math.exp(-2.0))
    assert "narrowest" in refusal({"log_std_min": -2.0, "target_sigma": 0.999 * least})
    assert LearnConfig.model_validate({"log_std_min": -2.0, "target_sigma": 1.001 * least})
    assert LearnConfig.model_validate({"head": "beta", "log_std_min": -2.0, "target_sigma": 0.1})  # has no log_std
    assert "largest concentrations" in refusal({"head": "beta", "target_sigma": BETA_SIGMA_MIN})


@pytest.mark.parametrize("log_std_max", [-2.0, -1.0, -0.5, 0.0, 2.0])
def test_more_entropy_than_squashing_leaves_of_the_widest_policy_is_refused(log_std_max: float) -> None:
    most, bound = widest_sigma(log_std_max), {"log_std_max": log_std_max}
    assert "widest" in refusal(bound | {"target_sigma": 1.001 * most})
    assert LearnConfig.model_validate(bound | {"target_sigma": 0.999 * most})


def test_a_mixture_may_be_as_much_wider_as_its_components_lie_apart() -> None:
    narrow = {"log_std_max": -2.0}
    assert "widest" in refusal(narrow | {"target_sigma": 0.15})
    assert LearnConfig.model_validate(narrow | {"head": "mixture", "target_sigma": 0.15})
    assert "widest" in refusal(narrow | {"head": "mixture", "mixture_components": 1, "target_sigma": 0.15})
    assert LearnConfig.model_validate(narrow | {"head": "beta", "target_sigma": 0.15})


@pytest.mark.parametrize("learn", [DDPG, {"temperature": 0.2}, V1 | {"temperature": 0.2}])
def test_a_target_that_nobody_follows_may_be_anything(learn: dict[str, Any]) -> None:
    assert LearnConfig.model_validate(learn | {"target_sigma": 100.0})


# --- updates per step --------------------------------------------------------------------------------------------

BARE = {"critic_layer_norm": False}


@pytest.mark.parametrize(
    "learn",
    [
        {},
        V1,
        DDPG,
        {"critics": ENSEMBLE - 1},
        {"critics": 8, "critic_subset": 8},
        {"critics": 8, "critic_subset": 5},
        {"critic_dropout": 0.01},
        BATCH_NORM | {"critic_layer_norm": True},  # which has no effect there
    ],
)
def test_many_updates_without_a_stabiliser_are_refused(learn: dict[str, Any]) -> None:
    assert LearnConfig.model_validate(BARE | learn | {"updates_per_step": UPDATES_PER_STEP_MAX})
    words = refusal(BARE | learn | {"updates_per_step": 5.01})
    assert "updates_per_step 5.01 is above 5 and nothing stabilises the critics" in words
    assert "set critic_layer_norm with critic 'mlp', or critics of 5 or more, twice critic_subset at least" in words


@pytest.mark.parametrize(
    "learn", [{"critic_layer_norm": True}, {"critics": ENSEMBLE}, {"critics": 8, "critic_subset": 4}]
)
def test_many_updates_with_a_stabiliser_are_taken(learn: dict[str, Any]) -> None:
    assert LearnConfig.model_validate(BARE | {"updates_per_step": 20.0} | learn).stabilised


# --- data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "size", "rows"), [(0.0, 256, 0), (0.001, 256, 0), (0.999, 256, 256), (0.5, 1, 0)])
def test_a_share_of_prior_data_must_leave_both_sides_a_row(share: float, size: int, rows: int) -> None:
    words = refusal(PRIOR | {"prior_share": share, "batch_size": size})
    assert f"prior_share {share:g} of batch_size {size} is {rows}" in words
    assert LearnConfig.model_validate({"prior_share": share, "batch_size": size})


@pytest.mark.parametrize(
    "learn",
    [
        {"n_step": 0},
        {"n_step": 21},
        {"prior_share": 1.0},
        {"critic_dropout": 1.0},
        {"critics": 0},
        {"critics": 33},
        {"polyak": 0.0},
        {"polyak": 1.1},
        {"actor_delay": 0},
        {"temperature": 0.0},
        {"temperature": "fixed"},
        {"correction_weight": 0.0},
        {"exploration_sigma": -0.1},
        {"smooth_time": -1.0},
        {"discount": 1.0},
        {"variant": "td3"},
        {"head": "softmax"},
        {"mixture_components": 0},
        {"actor_lr": float("nan")},
        {"target_sigma": float("inf")},
    ],
)
def test_values_out_of_range_are_refused_by_name(learn: dict[str, Any]) -> None:
    assert next(iter(learn)) in refusal(learn)


# --- as it is met ------------------------------------------------------------------------------------------------


def test_both_sides_refuse_it_in_words_and_name_all_that_is_wrong() -> None:
    overrides = ["learn.variant=ddpg", "learn.head=beta", "learn.temperature=0.2"]
    for load in (lambda: load_config("arm0", overrides=overrides), lambda: load_learner_settings(overrides=overrides)):
        with pytest.raises(ConfigError) as caught:
            load()
        assert caught.value.command
        for words in ("deterministic actor", "no temperature"):
            assert words in str(caught.value)


def test_prior_data_is_given_on_the_command_line_as_toml() -> None:
    settings = load_learner_settings(overrides=["learn.prior_data=['runs/one', 'runs/two/replay.db']"])
    assert settings.learn.prior_data == (str(Path("runs/one").absolute()), str(Path("runs/two/replay.db").absolute()))
    assert load_learner_settings(overrides=["learn.prior_data=[]"]).learn.prior_data == ()


def test_noise_is_held_for_no_time_unless_somebody_says_so() -> None:
    assert load_config("arm0").collect.noise_hold_s == 0.0
    assert load_config("arm0", overrides=["collect.noise_hold_s=0.1"]).collect.noise_hold_s == 0.1
    with pytest.raises(ConfigError, match="noise_hold_s"):
        load_config("arm0", overrides=["collect.noise_hold_s=-0.1"])
