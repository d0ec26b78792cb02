"""The ten bugs, each in several forms, as changes of the software's text: what ``tools/check_bugs.py`` puts back in.

A change is one piece of text of one module, which must be there exactly once, and what takes its place when the module is
imported; the file itself is never touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType


@dataclass(frozen=True, slots=True)
class Mutation:
    """One form of a bug.

    Attributes:
        bug: its number, 1 to 10; the tests of this number must find it.
        what: goes wrong.
        module: that is changed; within ``robotsac``.
        old, new: text of it, and what takes its place.
    """

    bug: int
    what: str
    module: str
    old: str
    new: str

    @property
    def module_name(self) -> str:
        """To import it by."""
        return f"robotsac.{self.module}"

    def applied(self, source: str) -> str:
        """``source`` with the bug in it.

        Raises:
            ValueError: ``old`` is not there exactly once.
        """
        if source.count(self.old) != 1:
            raise ValueError(f"{self.module_name} has {self.old!r} {source.count(self.old)} times, not once")
        return source.replace(self.old, self.new)


class Mutator(MetaPathFinder):
    """Put first on ``sys.meta_path`` before ``robotsac`` is imported, it gives out one module with its bug in it."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if name != self._mutation.module_name:
            return None
        spec = PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        assert spec is not None and spec.origin is not None
        spec.loader = _MutatedLoader(name, spec.origin, self._mutation)
        return spec


class _MutatedLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, mutation: Mutation) -> None:
        super().__init__(name, path)
        self._mutation = mutation

    def get_code(self, fullname: str) -> CodeType:
        """Compiled here and now: the byte code on disk is neither read nor written."""
        source = self._mutation.applied(self.get_data(self.path).decode("utf-8"))
        code: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return code


_TARGET = "return reward + discount * (1.0 - terminal) * soft_value"
_SOFT = "soft_value = next_q.amin(dim=0) - alpha * next_log_prob"
_NEXT = "state.actor.sample(next_obs, noise.next_action)"
_DENSITY = "- log_std - tanh_log_det(u)"
_MOVE = "move_target(self.target.tensors, self.critic.tensors, self.constants.polyak)"
_LERP = "_foreach_lerp_(list(target), list(online), polyak)"
_IS_END = "(end == _SUCCESS) | (end == _FAILURE)"
_SLOT = "slot = self.total % self.capacity"
_OBS_AT = "self._obs.take(rows[:, -self._references :])"
_V1_LOSS = "loss = critic_loss(q, target_of_q(state, batch, next_obs))\n    step(state.critic_adam"
_ONLINE_V = "batch.reward + state.constants.discount * (1.0 - batch.terminal) * value_of(state.value, next_obs)"
_NORMALISED = "self.normaliser(batch.obs), self.normaliser(batch.next_obs)"
_K_STEPS, _ONE_STEP = "discount_over(batch, state.constants.discount)", "state.constants.discount"
_DDPG_MOVE = "move_target(list(self.actor_target.parameters()), list(self.actor.parameters()), self.constants.polyak)"

MUTATIONS = (
    # 1: time limits
    Mutation(1, "a time limit is an end", "records", _IS_END, _IS_END.replace("_FAILURE", "EpisodeEnd.TIME_LIMIT")),
    Mutation(1, "whatever cuts an episode is an end", "records", _IS_END, "(end != EpisodeEnd.RUNNING)"),
    Mutation(1, "ends bootstrap", "learner.critic", _TARGET, "return reward + discount * soft_value"),
    Mutation(1, "the step into a fault is learned", "records", '(records["end"] < _FAULT)', '(records["end"] <= _FAULT)'),
    Mutation(1, "the last observation is the next episode's first", "actor.episodes", "self._put_final(obs, end, version)", "self._put_final(env.reset()[0], end, version)"),
    Mutation(1, "ddpg: ends bootstrap", "learner.ddpg", "discount * (1.0 - terminal) * next_q", "discount * next_q"),
    Mutation(1, "sync: whatever cuts an episode is an end", "learner.outcomes", "[outcome.end.terminated]", "[outcome.end is not EpisodeEnd.RUNNING]"),
    # 2: the log-probability
    Mutation(2, "no tanh term", "learner.heads.gaussian", _DENSITY, "- log_std"),
    Mutation(2, "the tanh term's sign", "learner.heads.gaussian", _DENSITY, "- log_std + tanh_log_det(u)"),
    Mutation(2, "log(1 - tanh² + 1e-6)", "learner.heads.gaussian", "return 2.0 * (_LOG_2 - u - softplus(-2.0 * u))", "return torch.log(1.0 - torch.tanh(u).square() + 1e-6)"),
    Mutation(2, "a mean over dimensions", "learner.heads.gaussian", "return per_dimension.sum(dim=-1)", "return per_dimension.mean(dim=-1)"),
    Mutation(2, "the constant once, not per dimension", "learner.heads.gaussian", "- _HALF_LOG_2_PI * u.shape[-1]", "- _HALF_LOG_2_PI"),
    Mutation(2, "no tanh term in the mixture", "learner.heads.mixture", "- tanh_log_det(z)", ""),
    # 3: the temperature
    Mutation(3, "the loss's sign", "learner.temperature", "return -log_alpha.exp()", "return log_alpha.exp()"),
    Mutation(3, "the target's sign", "learner.temperature", "+ target_entropy)", "- target_entropy)"),
    Mutation(3, "no detach", "learner.temperature", "log_prob.detach().mean()", "log_prob.mean()"),
    Mutation(3, "one target for all arms", "learner.target_entropy", "return act_dim * (", "return 1 * ("),
    Mutation(3, "a target out of reach is taken", "config.learn", "if self.target_sigma >= SIGMA_MAX", "if self.target_sigma >= 9 * SIGMA_MAX"),
    Mutation(3, "a target that squashing keeps out of reach is taken", "config.learn", "if self.target_sigma >= components * widest", "if self.target_sigma >= 9 * widest"),
    # 4: the entropy in the target
    Mutation(4, "none", "learner.critic", _SOFT, "soft_value = next_q.amin(dim=0)"),
    Mutation(4, "its sign", "learner.critic", _SOFT, "soft_value = next_q.amin(dim=0) + alpha * next_log_prob"),
    Mutation(4, "outside of (1 - d)", "learner.critic", _TARGET, "return reward + discount * ((1.0 - terminal) * next_q.amin(dim=0) - alpha * next_log_prob)"),
    Mutation(4, "of the current state", "learner.sac", _NEXT, "state.actor.sample(state.normaliser(batch.obs), noise.next_action)"),
    Mutation(4, "the larger of the critics", "learner.critic", _SOFT, "soft_value = next_q.amax(dim=0) - alpha * next_log_prob"),
    Mutation(4, "cross_q: none", "learner.cross_q", "next_log_prob, alpha, discount)", "next_log_prob, 0.0 * alpha, discount)"),
    # 5: gradients
    Mutation(5, "the actor's loss moves the critics", "learner.critic", "layers = [layer.detached() for layer in self.layers]", "layers = self.layers"),
    Mutation(5, "the target is not detached", "learner.sac", "with torch.no_grad():\n        target = soft", "if True:\n        target = soft"),
    Mutation(5, "both critics have the mean error", "learner.critic", "0.5 * (q - target)", "0.5 * (q.mean(dim=0, keepdim=True).expand_as(q) - target)"),
    Mutation(5, "the action is cut out of the actor's graph", "learner.actor_step", "frozen(obs, action, noise", "frozen(obs, action.detach(), noise"),
    Mutation(5, "v1: V's loss moves actor and critics", "learner.sac_v1", "with torch.no_grad():\n        action, log", "if True:\n        action, log"),
    Mutation(5, "v1: Q's loss moves V", "learner.sac_v1", _V1_LOSS, _V1_LOSS.replace("target_of_q(state, batch, next_obs)", _ONLINE_V)),
    Mutation(5, "ddpg: the actor's loss moves the critics", "learner.ddpg", "state.critic.frozen(obs, action)", "state.critic(obs, action)"),
    Mutation(5, "cross_q: the actor's loss moves the critics", "learner.batch_norm_critic", "NormedLayer(*(part.detach() for part in layer))", "layer"),
    Mutation(5, "cross_q: the target is not detached", "learner.cross_q", "next_q = next_q.detach()", "next_q = next_q.clone()"),
    # 6: broadcasting
    Mutation(6, "a minibatch's rewards are a column", "learner.replay", "action, reward, next_obs, terminal, steps[0]", "action, reward[:, None], next_obs, terminal, steps[0]"),
    Mutation(6, "shapes are not compared", "learner.networks", "if any(tensor.shape != tensors[0].shape", "if False and any(tensor.shape != tensors[0].shape"),
    Mutation(6, "the critics' loss is a sum over rows", "learner.critic", ".square().mean(dim=1).sum()", ".square().sum()"),
    Mutation(6, "the actor's loss is a sum over rows", "learner.actor_loss", "return (alpha * log_prob - value).mean()", "return (alpha * log_prob - value).sum()"),
    # 7: actions and discounts
    Mutation(7, "the replay's action at s'", "learner.sac", "state.target(next_obs, next_action,", "state.target(next_obs, batch.action,"),
    Mutation(7, "one noise for both actions", "learner.algorithm", "Noise(both[:, 0], both[:, 1],", "Noise(both[:, 0], both[:, 0],"),
    Mutation(7, "the actor takes the target's noise", "learner.actor_step", "sample(obs, noise.action, constants.pathwise)", "sample(obs, noise.next_action, constants.pathwise)"),
    Mutation(7, "one batch for all updates", "learner.learning", "noise = self.state", "self.replay_generator.manual_seed(0)\n        noise = self.state"),
    Mutation(7, "one batch for all updates of a call", "learner.replay", "[self._slots(batch_size) for _ in range(count)]", "[self._slots(batch_size)] * count"),
    Mutation(7, "one noise for all updates of a call", "learner.algorithm", "both[number].normal_(generator=generator)", "both.copy_(torch.randn(both[0].shape, generator=generator)) if number == 0 else None"),
    Mutation(7, "γ for γ^n", "learner.critic", "else discount**batch.steps", "else discount"),
    Mutation(7, "rewards between are not discounted", "learner.n_step", "discount**power * reward", "reward"),
    Mutation(7, "windows cross episodes", "learner.n_step", "more = goes_on[last] &", "more = (last < len(goes_on) - 1) &"),
    Mutation(7, "γ in half precision", "learner.actor_step", "discount=discount_of(learn, control_rate_hz)", "discount=float(__import__('torch').tensor(discount_of(learn, control_rate_hz)).bfloat16())"),
    Mutation(7, "v1: V of the next action's noise only", "learner.sac_v1", " action, log_prob = state.actor.sample(obs, noise.next_action)", " action, log_prob = state.actor.sample(obs, noise.action)"),
    Mutation(7, "ddpg: the replay's action at s'", "learner.ddpg", "state.critic_target(next_obs, next_action)", "state.critic_target(next_obs, batch.action)"),
    Mutation(7, "ddpg: the online actor at s'", "learner.ddpg", "state.actor_target.sample(", "state.actor.sample("),
    Mutation(7, "ddpg: γ for γ^n", "learner.ddpg", _K_STEPS, _ONE_STEP),
    Mutation(7, "cross_q: the replay's action at s'", "learner.cross_q", "batch.action, next_obs, next_action)", "batch.action, next_obs, batch.action)"),
    Mutation(7, "cross_q: γ for γ^n", "learner.cross_q", _K_STEPS.replace("state", "self"), _ONE_STEP.replace("state", "self")),
    Mutation(7, "sync: rewards between are not discounted", "learner.sync", "discount_of(learn, rate_hz), *dims", "1.0, *dims"),
    Mutation(7, "sync: one noise for all updates", "learner.sync", "draw(size, self._update_noise)", "draw(size, self._update_noise.manual_seed(0))"),
    Mutation(7, "sync: one batch for all updates", "learner.sync", "self.replay.sample(size)", "(self.replay._generator.manual_seed(0), self.replay.sample(size))[1]"),
    Mutation(7, "the next step is taken for the last", "learner.n_step", "after=obs[start + 1]", "after=obs[last]"),
    Mutation(7, "the policy is smooth over n steps, not over one", "learner.smoothness", "next_obs if batch.after is None else normaliser(batch.after)", "next_obs"),
    # 8: the replay
    Mutation(8, "off by one where it wraps", "learner.replay", _SLOT, _SLOT.replace("self.total", "(self.total + 1)")),
    Mutation(8, "observations: off by one where they wrap", "learner.obs_ring", "(begin + numbers) % self._room", "(begin + numbers) % (self._room - 1)"),
    Mutation(8, "observations: the rest goes to the end", "learner.obs_ring", "self._rows.put(0, fresh[before_wrap:])", "self._rows.put(self._next, fresh[before_wrap:])"),
    Mutation(8, "observations: the row behind, across an episode's end", "learner.replay", _OBS_AT, "self._obs.take(rows[:, -self._references, None] + torch.arange(self._references))"),
    Mutation(8, "observations: gone while still referred to", "learner.obs_ring", "len(self._closed) > self._blocks", "len(self._closed) >= self._blocks"),
    Mutation(8, "observations: one that moved is where it was", "learner.replay", "references >= first", "references > first"),
    Mutation(8, "the newest is never drawn", "learner.replay", "torch.randint(len(self),", "torch.randint(max(1, len(self) - 1),"),
    Mutation(8, "a minibatch is a view", "learner.replay", "rows = self._rows.take(slots)", "rows = self._rows.tensor[: len(slots)]"),
    Mutation(8, "the last record of a batch is a view", "learner.assembler", "records[-1:].copy()", "records[-1:]"),
    Mutation(8, "what borders on a lost record is paired", "records", "(seq[1:] == seq[:-1] + 1)", "True"),
    Mutation(8, "records hold the next observation", "actor.episodes", 'self._put(obs, action, info["applied"]', 'self._put(next_obs, action, info["applied"]'),
    # 9: units
    Mutation(9, "the scale doubled", "env.codec", " * self._action_scale", " * 2.0 * self._action_scale"),
    Mutation(9, "applied actions in newton metres", "env.codec", "np.clip(tau / self._action_scale, -1.0, 1.0)", "np.clip(tau, -1.0, 1.0)"),
    Mutation(9, "learned from what was asked", "records", 'action=np.ascontiguousarray(head["action_applied"])', 'action=np.ascontiguousarray(head["action_asked"])'),
    Mutation(9, "recorded as applied what was asked", "actor.episodes", 'info["applied"], reward', "action, reward"),
    Mutation(9, "exported without the normaliser", "learner.export", "self.actor.action(self.normaliser(obs), noise)", "self.actor.action(obs, noise)"),
    Mutation(9, "s' is not normalised", "learner.sac", _NORMALISED, _NORMALISED.replace("self.normaliser(batch.next_obs)", "batch.next_obs")),
    Mutation(9, "what came one step later is not normalised", "learner.smoothness", "normaliser(batch.after)", "batch.after"),
    Mutation(9, "critics see another scale of the replay's action", "learner.sac", "state.critic(obs, batch.action, noise", "state.critic(obs, 2.0 * batch.action, noise"),
    Mutation(9, "updates move the normaliser", "learner.networks", "(obs - self.mean)", "(obs - self.mean.lerp_(obs.mean(dim=0), 0.01))"),
    Mutation(9, "updates are counted as observations", "learner.learning", "return self.backend.backend.updates(self.samples(count), noise)", "b = self.samples(count); self.observed.add(b.obs.numpy(), self.state.normaliser); return self.backend.backend.updates(b, noise)"),
    Mutation(9, "the newest batch alone is counted", "learner.obs_statistics", "total = rows.mean(axis=0), float(self._count) + len(rows)", "total = rows.mean(axis=0), float(len(rows))"),
    Mutation(9, "sync: evaluations are counted as observations", "learner.sync", "            rate.add(outcome.applied)", "            rate.add(outcome.applied)\n            self.observed.add(outcome.obs[None], self.state.normaliser)"),
    Mutation(9, "v1: s is not normalised", "learner.sac_v1", _NORMALISED, _NORMALISED.replace("self.normaliser(batch.obs)", "batch.obs")),
    Mutation(9, "v1: s' is not normalised", "learner.sac_v1", _NORMALISED, _NORMALISED.replace("self.normaliser(batch.next_obs)", "batch.next_obs")),
    Mutation(9, "ddpg: s is not normalised", "learner.ddpg", _NORMALISED, _NORMALISED.replace("self.normaliser(batch.obs)", "batch.obs")),
    Mutation(9, "ddpg: s' is not normalised", "learner.ddpg", _NORMALISED, _NORMALISED.replace("self.normaliser(batch.next_obs)", "batch.next_obs")),
    Mutation(9, "cross_q: s is not normalised", "learner.cross_q", _NORMALISED, _NORMALISED.replace("self.normaliser(batch.obs)", "batch.obs")),
    Mutation(9, "cross_q: s' is not normalised", "learner.cross_q", _NORMALISED, _NORMALISED.replace("self.normaliser(batch.next_obs)", "batch.next_obs")),
    Mutation(9, "cross_q: running statistics are the newest batch's", "learner.batch_norm_critic", "running_mean.lerp_(mean, MOMENTUM)", "running_mean.lerp_(mean, 1.0 - MOMENTUM)"),
    Mutation(9, "cross_q: running variance is the newest batch's", "learner.batch_norm_critic", "running_variance.lerp_(variance, MOMENTUM)", "running_variance.lerp_(variance, 1.0 - MOMENTUM)"),
    Mutation(9, "cross_q: running statistics of (s, a) alone", "learner.batch_norm_critic", "self._remember(depth, mean.detach(), variance.detach())", "self._remember(depth, x[:, : len(obs)].mean(1, True).detach(), x[:, : len(obs)].var(1, keepdim=True, correction=0).detach())"),
    Mutation(9, "cross_q: the actor asks by its batch's statistics", "learner.batch_norm_critic", "x, *self._running(depth))", "x, *reversed(torch.var_mean(x, dim=1, correction=0, keepdim=True)))"),
    Mutation(9, "sync: the policy acts on raw observations", "learner.sync", "state.actor.action(state.normaliser(given), drawn)", "state.actor.action(given, drawn)"),
    # 10: what runs
    Mutation(10, "targets move by 1 - τ", "learner.critic", _LERP, _LERP.replace("polyak)", "1.0 - polyak)")),
    Mutation(10, "critics move towards their targets", "learner.critic", _LERP, "_foreach_lerp_(list(online), list(target), polyak)"),
    Mutation(10, "targets move twice", "learner.sac", f"{_MOVE}\n        return", f"{_MOVE}\n        {_MOVE}\n        return"),
    Mutation(10, "half the updates", "learner.limiter", "math.floor(self.updates_per_step * max", "math.floor(0.5 * self.updates_per_step * max"),
    Mutation(10, "the actor's delay is ignored", "learner.algorithm", "(algorithm.updates + 1 + ahead) % algorithm.constants.actor_delay == 0", "algorithm.updates + 1 > 0"),
    Mutation(10, "α as it was at first", "learner.sac", "alpha = self.log_alpha.detach().exp()", "alpha = torch.tensor(0.01)"),
    Mutation(10, "updates in half precision", "learner.algorithm", "    metrics = algorithm.compute(", "    with torch.autocast('cpu', torch.bfloat16):\n      metrics = algorithm.compute("),
    Mutation(10, "ddpg: the actor's target stays behind", "learner.ddpg", _DDPG_MOVE, "pass"),
    Mutation(10, "bundles of old weights", "learner.export", "self._snapshot_live()\n        noise, action", "noise, action"),
    Mutation(10, "the robot keeps its first policy", "policy.slot", "if ready is not None and ready is not self.current", "if ready is not None and self.current is None"),
    Mutation(10, "the store looks once", "policy.store", "if mtime_ns != self._seen_mtime_ns", "if self._latest is None"),
    Mutation(10, "Adam begins anew", "learner.checkpoint", "for name in states:", "for name in sorted(states)[:0]:"),
    Mutation(10, "generators begin anew", "learner.checkpoint", "for name, generator in generators.items():\n        generator.set_state", "for name, generator in ():\n        generator.set_state"),
)  # fmt: skip
"""One line each, however long: a table, read by its columns."""
