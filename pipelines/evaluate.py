"""adalabel evaluate: what a policy costs and gets right on a table, beside every network alone."""

from dataclasses import dataclass, fields

from pipelines.options import CommandOptions
from pipelines.policy_source import read_policy
from policy.costs import read_costs
from policy.errors import InputError
from policy.evaluate import Evaluation, evaluate
from policy.exits import with_exits
from policy.fingerprints import difference
from policy.mixture import answers_used, with_graph
from policy.rules import always
from policy.table import read_table
from policy.table_manifest import fingerprints_of


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(CommandOptions):
    """Replay a policy on a table: cost, speed-up, accuracy, use of each answer."""

    table: str
    """The table's folder; best one that the policy was not fitted on."""
    policy: str
    """The policy's folder, made by `adalabel fit`; or a registry's, with @VERSION for another than
    its CURRENT."""
    costs: str | None = None
    """Costs to count in (JSON); without it, those the policy was fitted for."""


@dataclass(frozen=True)
class EvaluateReceipt(Evaluation):
    """The policy's evaluation, with that of every single network under `single`.

    `seen_in_fitting` is True where the policy was fitted and chosen on this very table.
    """

    single: dict[str, Evaluation]
    seen_in_fitting: bool

    def text(self) -> str:
        """For people."""
        head = f"{'':24} {'top-1':>7} {'top-5':>7} {f'cost/{self.unit}':>10} {'speed-up':>8}"
        lines = [f"{self.n} images", head]
        for name, e in ({"this policy": self} | self.single).items():
            top5 = "-" if e.top5 is None else f"{e.top5:.2%}"
            speedup = "-" if e.speedup is None else f"{e.speedup:.2f}x"
            lines.append(f"{name:24} {e.top1:7.2%} {top5:>7} {e.cost:10.4g} {speedup:>8}")
        lines.append(f"{'answer':24} {'got by':>7} {'exits':>7} {'of cost':>10}")
        for name, use in self.usage.items():
            lines.append(f"{name:24} {use.samples:7.1%} {use.exits:7.1%} {use.cost:10.1%}")
        if self.seen_in_fitting:
            lines.append(
                "The policy was fitted and chosen on these very images; judge it on others."
            )
        return "\n".join(lines)


def run(options: EvaluateOptions) -> EvaluateReceipt:
    """Check that policy and table speak of the same networks, then replay."""
    bundle = read_policy(options.policy).bundle
    table = read_table(options.table)
    found = fingerprints_of(table.networks)
    differs = difference("the policy was fitted for", bundle.fingerprints, "the table has", found)
    if differs:
        raise InputError(f"{differs} Evaluate on a table extracted with the same networks file.")
    seen = bundle.evidence is not None and bundle.evidence.data_digest == table.digest
    if bundle.heads:
        table = with_exits(options.table, table, bundle.heads, table.k)
    policy = bundle.policy
    if options.costs is not None:
        costs = read_costs(options.costs)
        graph = policy.graph.with_edges()  # the rules stand, whichever answer is dearer now
        policy = with_graph(policy, graph.with_costs(costs.costs, costs.unit))
    for answer in sorted(answers_used(policy) | {policy.graph.full}):
        if answer not in table.outputs:
            raise InputError(f"the table lacks answer {answer!r}, which the policy is measured by")
    problem = table.problem("top1", "excess")
    replayed = evaluate(policy, problem)
    known = [answer for answer in policy.graph.answers if answer in table.outputs]
    single = {a: evaluate(always(policy.graph, a), problem) for a in known}
    own = {field.name: getattr(replayed, field.name) for field in fields(replayed)}
    return EvaluateReceipt(**own, single=single, seen_in_fitting=seen)
