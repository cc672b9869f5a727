"""Fuse what follows some normalizers of a model, all that can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from anynorm.surgery.call_info import Seen
from anynorm.surgery.converting.twins import check_state, to_anynorm
from anynorm.surgery.fusing.blocks import Blocks
from anynorm.surgery.fusing.patterns import Match, match
from anynorm.surgery.fusing.phi import phi_of_function, phi_of_module
from anynorm.surgery.fusing.rewrite import new_forward, rewrite
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.receipt import Log
from anynorm.surgery.refused import Refused
from anynorm.surgery.transfer_hooks import hooked, succeed
from anynorm.surgery.walk import put

__all__ = ["fuse_norms"]


def fuse_norms(
    model: nn.Module,
    norms: Sequence[Normalizer],
    blocks: Blocks,
    seen: Mapping[nn.Module, Seen],
    log: Log,
) -> nn.Module:
    """Make anynorm's layers of `norms`, with what follows them where that can be fused.

    `log` gets a note for each: what was fused, or the reason why not.
    """
    fusion = _Fusion(model, blocks, seen, log)
    matches = [found for norm in norms if (found := fusion.find(norm)) is not None]
    fusion.replace_those_with_their_own()
    groups: dict[nn.Module, list[Match]] = {}
    for one in fusion.one_for_each_activation(matches):
        groups.setdefault(one.block, []).append(one)
    # The forward of a module can become part of that of one around it, so it changes first.
    for block in sorted(groups, key=lambda one: -blocks.names[one][0].count(".")):
        fusion.carry_out(block, groups[block])
    log.facts["fused"] = f"{len(log.changed)} of {len(norms)} normalizers"
    fusion.convert_the_rest()
    return fusion.model


class _Fusion:
    """Changes the model, and writes the receipt."""

    def __init__(
        self, model: nn.Module, blocks: Blocks, seen: Mapping[nn.Module, Seen], log: Log
    ) -> None:
        self.model, self.blocks, self.seen, self.log = model, blocks, seen, log
        self.rest: list[Normalizer] = []
        self.with_their_own: list[tuple[Normalizer, str]] = []  # and the name of the φ inside

    def find(self, norm: Normalizer) -> Match | None:
        """What follows `norm` and can be fused; None if that is nothing, or φ is inside."""
        try:
            self._twin(norm)
            if norm.activation is None:
                return match(norm, self.blocks)
            self.with_their_own.append((norm, _own_activation(norm)))
        except Refused as reason:
            self._refuse(norm, str(reason))
        return None

    def replace_those_with_their_own(self) -> None:
        """Make anynorm's layers of those that have an activation inside."""
        for norm, phi in self.with_their_own:
            self._change(norm, phi, f"its {phi}")

    def one_for_each_activation(self, matches: Sequence[Match]) -> list[Match]:
        """The matches to carry out: of two normalizers whose outputs are added, one takes both."""
        chosen: dict[Any, Match] = {}
        for one in sorted(matches, key=lambda one: len(one.inside)):
            first = chosen.setdefault(one.chain.end, one)
            if first is not one:
                self._refuse(one.norm, f"its output is the residual of {first.norm.name!r}")
        return list(chosen.values())

    def carry_out(self, block: nn.Module, matches: Sequence[Match]) -> None:
        """Fuse what follows in the forward of `block`, and change this forward if need be."""
        alone = {m: place for m in matches if (place := self._only_there(m, matches)) is not None}
        how = dict.fromkeys(alone, "")
        if len(alone) < len(matches):
            try:
                source = new_forward(block, matches, self.blocks)
            except Refused as reason:
                for one in matches:
                    if one not in alone:
                        self._refuse(
                            one.norm, f"{one.told} stays in {self.blocks.told(block)}: {reason}"
                        )
            else:
                told = self.blocks.told(block)
                rewrite(block, source)
                how = {m: f"; {told} is a {type(block).__name__} now" for m in matches}
                alone = {}
        for parent, child in set(alone.values()):
            setattr(parent, child, succeed(getattr(parent, child), nn.Identity()))
        for one, words in how.items():
            self._change(one.norm, one.phi, f"{one.told}{words}")

    def convert_the_rest(self) -> None:
        """Make anynorm's layers of normalizers with which nothing is fused."""
        made = 0
        for norm in self.rest:
            try:
                new = self._twin(norm)
            except Refused:
                continue
            if new is not norm.module:
                self._put(norm, new)
                made += 1
        if made:
            self.log.facts["only converted"] = f"{made} of {len(self.rest)} others"

    def _only_there(self, one: Match, matches: Sequence[Match]) -> tuple[nn.Module, str] | None:
        """The place of a module that applies φ behind some of `matches` and nowhere else."""
        end, block = one.chain.end, one.block
        if end.op != "call_module":
            return None
        parent, _, child = str(end.target).rpartition(".")
        module = block.get_submodule(str(end.target))
        direct = {m.chain.end for m in matches if m.chain.total is None}
        calls = self.blocks.traced(block).calls(str(end.target))
        if not direct.issuperset(calls):
            return None
        # A module with several names is called by this one here only if it is a child of `block`.
        if len(self.blocks.names[module]) > 1:
            return None if parent else (block, child)
        often = len(calls) * self.blocks.calls[block].count
        called = self.blocks.calls[module].count
        return (block.get_submodule(parent), child) if called == often else None

    def _twin(self, norm: Normalizer) -> Any:
        """anynorm's layer with the same function, without φ; raises `Refused` if there is none."""
        if not norm.known:
            raise Refused(norm.doubt)
        new = to_anynorm(replace(norm, fused=()), self.seen[norm.module]) or norm.module
        if norm.recognition is not None:
            check_state(norm.module, new)
        return new

    def _change(self, norm: Normalizer, phi: str, words: str) -> None:
        new = self._twin(norm)
        new.activation = phi
        self._put(norm, new)
        kinds = f"{type(norm.module).__name__} to anynorm ({type(new).__name__})"
        self.log.change(norm.name, f"{kinds} with {words}")

    def _put(self, norm: Normalizer, new: nn.Module) -> None:
        if new is not norm.module:
            self.model = put(self.model, norm.place, succeed(norm.module, new))

    def _refuse(self, norm: Normalizer, reason: str) -> None:
        self.rest.append(norm)
        self.log.refuse(norm.name, reason)


def _own_activation(norm: Normalizer) -> str:
    """The name of the φ that the layer applies itself."""
    given: Any = norm.activation
    if isinstance(given, str):  # known by what the module computes
        return given
    if any(map(hooked, norm.fused)):
        raise Refused("the activation inside has hooks")
    is_module = isinstance(given, nn.Module)
    phi = phi_of_module(given) if is_module else phi_of_function(given)
    if phi is None:
        kind = type(given).__name__ if is_module else getattr(given, "__name__", "")
        raise Refused(f"its activation {kind} is none that anynorm's layers can fuse")
    return phi
