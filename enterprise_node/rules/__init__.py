"""Desensitisation rules: what an owner does to columns before any job sees them.

>>> from enterprise_node.rules import parse_rules
>>> rules = parse_rules('[columns.force]\\nrule = "round"\\nstep = 0.5')
>>> rules.column("force")
Round(step='0.5', to='')

Light on purpose: the process that makes snapshots loads this package and little else.
"""

from enterprise_node.rules.effects import after, check_fit
from enterprise_node.rules.kept import KEY_BYTES, CodeMaps, Kept
from enterprise_node.rules.model import Bucket, Codes, Drop, Pseudonym, Round, Rule, Rules, RulesError, Shift
from enterprise_node.rules.reading import parse_rules, read_rules
from enterprise_node.rules.words import describe_rule, describe_rules

__all__ = [
    "KEY_BYTES",
    "Bucket",
    "CodeMaps",
    "Codes",
    "Drop",
    "Kept",
    "Pseudonym",
    "Round",
    "Rule",
    "Rules",
    "RulesError",
    "Shift",
    "after",
    "check_fit",
    "describe_rule",
    "describe_rules",
    "parse_rules",
    "read_rules",
]
