"""Cuts the initial policy, and its reference, into shards; what is known of whole weights is noted before or while."""

from typing import Any

from papo.parallel import Ranks, Sharding
from papo.training.base_weights import SumsOfRows, base_parameters, fingerprint
from papo.training.reference import ReferenceModule


def cut_into_shards(
    policy: Any, reference: ReferenceModule | None, *, ranks: Ranks, sharding: Sharding
) -> str | None:
    """Leaves every rank its part of the initial weights.

    Args:
        policy: whole on every rank; or on the meta device, and then each rank reads its part of the files.
        reference: of the run.
        ranks: the processes of the run.
        sharding: how they share.

    Returns:
        The fingerprint of the policy's frozen weights, where it could not be taken before.

    Raises:
        RanksDiffer: they have not the same initial weights.
    """
    copy = reference.policy if reference is not None and reference.is_copy else None
    there = {name: p for name, p in policy.named_parameters() if not p.is_meta}
    files = policy.unread_weights
    ranks.require_equal(
        {
            "initial weights": fingerprint(there),
            "files of the model": None if files is None else files.digest(sharding.shard_size),
        },
        remedy="Each loads the model itself: give all the same files (model.path), and the same seed.",
    )
    if files is None:
        sharding.apply(policy, copy)
        return None
    rows = SumsOfRows(policy.read_weight)
    sharding.apply(policy, copy, rows.read)
    policy.unread_weights = None
    sums = rows.of_whole(ranks)
    if reference is not None and copy is not None:
        # It is the policy's weights, before they were made half as precise.
        reference.fingerprint = fingerprint(dict(copy.named_parameters()), sums)
    first_names = {parameter: name for name, parameter in policy.named_parameters()}
    base = base_parameters(policy)
    for name, parameter in policy.named_parameters(remove_duplicate=False):
        if name in base:
            sums[name] = sums[first_names[parameter]]
    return fingerprint(base, sums)
