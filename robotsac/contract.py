"""What a policy and a robot must agree on, to the last scale.

The robot side builds the contract from its config (``robotsac.env.codec``); the learner receives it in the first message
and puts it into every policy bundle; the robot refuses a bundle whose contract is not its own.
"""

from __future__ import annotations

import hashlib

import msgspec

SCHEMA = 2
CONTRACT_BYTES_MAX = 64_000


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named run of numbers in the observation or the action.

    Args:
        name: e.g. ``"q"``.
        size: how many numbers.
        unit: SI unit before scaling, ``"1"`` for none.
        scale: physical value per 1.0, one per number.
    """

    name: str
    size: int
    unit: str
    scale: tuple[float, ...]


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contract itself. Observation and action are the channels' concatenation, float32; actions lie in [-1, 1].

    Args:
        schema: version of this layout.
        task: task name; a policy is for one task.
        task_parameters: those that shape reward and observation, by name, each value as JSON text.
        joint_names: config joint order.
        control_rate_hz: policy rate.
        history_steps: past applied actions in the observation.
        observation, action: channels in order.
        model_digest: sha256 of joints, limits, rates and MJCF (``RobotConfig.model_digest``). Last, because a difference
            in it says least.
    """

    schema: int
    task: str
    task_parameters: dict[str, str]
    joint_names: tuple[str, ...]
    control_rate_hz: int
    history_steps: int
    observation: tuple[Channel, ...]
    action: tuple[Channel, ...]
    model_digest: str

    @property
    def obs_dim(self) -> int:
        """Length of the observation."""
        return sum(channel.size for channel in self.observation)

    @property
    def act_dim(self) -> int:
        """Length of the action."""
        return sum(channel.size for channel in self.action)

    def to_json(self) -> bytes:
        """Canonical bytes: the same contract gives the same bytes."""
        return msgspec.json.encode(self, order="deterministic")

    def digest(self) -> str:
        """sha256 of :meth:`to_json`."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @classmethod
    def from_json(cls, data: bytes) -> Contract:
        """The contract in ``data``.

        Raises:
            ValueError: too large, not a contract, of another schema, or with numbers that no robot has.
        """
        if len(data) > CONTRACT_BYTES_MAX:
            raise ValueError(f"contract of {len(data)} bytes is over the limit of {CONTRACT_BYTES_MAX}")
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema != SCHEMA:
            raise ValueError(f"contract schema {schema} is not {SCHEMA}")
        contract = msgspec.json.decode(data, type=cls)
        if contract.control_rate_hz < 1 or contract.history_steps < 0:
            raise ValueError(
                f"control rate {contract.control_rate_hz} Hz, history of {contract.history_steps} steps: not a contract"
            )
        if not contract.observation or not contract.action:
            raise ValueError("a contract without observation or without action")
        for channel in (*contract.observation, *contract.action):
            if channel.size != len(channel.scale) or not 0 < channel.size <= 4096:
                raise ValueError(f"channel {channel.name!r}: size {channel.size} with {len(channel.scale)} scales")
        return contract

    def difference(self, other: Contract) -> str:
        """The first field in which ``other`` differs, in words; ``""`` when equal."""
        for field in self.__struct_fields__:
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                if field in ("observation", "action"):
                    return _channel_difference(field, mine, theirs)
                if field == "task_parameters":
                    return _parameter_difference(mine, theirs)
                if field == "model_digest":
                    return f"limits, gains, gravity compensation or MJCF of the arm: model_digest is {mine[:12]} here and {theirs[:12]} there"
                return f"{field} is {_short(mine)} here and {_short(theirs)} there"
        return ""


class _Schema(msgspec.Struct):
    """What a contract of any schema has: its number."""

    schema: int


def _parameter_difference(mine: dict[str, str], theirs: dict[str, str]) -> str:
    """Every parameter that differs, in words."""
    return "; ".join(
        f"task.{name} is {_short(mine.get(name, 'not set'))} here and {_short(theirs.get(name, 'not set'))} there"
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    )


def _channel_difference(field: str, mine: tuple[Channel, ...], theirs: tuple[Channel, ...]) -> str:
    names_mine, names_theirs = [c.name for c in mine], [c.name for c in theirs]
    if names_mine != names_theirs:
        return f"{field} channels are {names_mine} here and {names_theirs} there"
    for a, b in zip(mine, theirs, strict=True):
        if a != b:
            return f"{field} channel {a.name!r} is {a.size} × {a.unit}, scale {_short(a.scale)} here and " + (
                f"{b.size} × {b.unit}, scale {_short(b.scale)} there"
            )
    return f"{field} differs"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
