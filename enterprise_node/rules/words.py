"""Rules in words, in both languages: what an owner reads before setting them and everybody reads in the catalog."""

from __future__ import annotations

from typing import Final

from enterprise_node.rules.model import Bucket, Codes, Drop, Pseudonym, Round, Rule, Rules, Shift

_WORDS: Final[dict[str, dict[str, str]]] = {
    "en": {
        "column": "{name}: {what}",
        "drop": "left out",
        "pseudonym agreement": "replaced by a keyed pseudonym, another one under each agreement",
        "pseudonym dataset": "replaced by a keyed pseudonym, the same under every agreement",
        "codes agreement": "replaced by random codes, others under each agreement; the owner keeps the map",
        "codes dataset": "replaced by random codes, the same under every agreement; the owner keeps the map",
        "round step": "rounded to multiples of {step}",
        "round to": "cut down to the beginning of its {to}",
        "bucket width": "put into intervals of {width}, named by their lower end",
        "bucket edges": "put into {count} intervals with the edges {edges}",
        "shift": "moved by a secret number of days, at most {days}; what lies between such dates stays",
        "shift unit": "moved by a secret number of days, at most {days}, one for each {unit}",
    },
    "zh": {
        "column": "{name}：{what}",
        "drop": "不提供",
        "pseudonym agreement": "替换为带密钥的假名，每份协议各不相同",
        "pseudonym dataset": "替换为带密钥的假名，所有协议下相同",
        "codes agreement": "替换为随机代码，每份协议各不相同；对照表由数据所有方保管",
        "codes dataset": "替换为随机代码，所有协议下相同；对照表由数据所有方保管",
        "round step": "取整到 {step} 的倍数",
        "round to": "截断到所在{to}的起点",
        "bucket width": "归入宽度为 {width} 的区间，以下界表示",
        "bucket edges": "归入 {count} 个区间，分界为 {edges}",
        "shift": "平移一个保密的天数，最多 {days} 天；这类日期之间的间隔不变",
        "shift unit": "平移一个保密的天数，最多 {days} 天，每个 {unit} 各有一个",
    },
}
_PARTS_ZH: Final = {
    "minute": "分钟",
    "hour": "小时",
    "day": "日",
    "week": "周",
    "month": "月",
    "quarter": "季度",
    "year": "年",
}


def describe_rules(rules: Rules, language: str) -> list[str]:
    """One line for each column that has a rule; ``language`` is ``en`` or ``zh``."""
    words = _WORDS["zh" if language == "zh" else "en"]
    return [
        words["column"].format(name=name, what=describe_rule(rule, language)) for name, rule in rules.columns.items()
    ]


def describe_rule(rule: Rule, language: str) -> str:
    """What one rule does to its column."""
    words = _WORDS["zh" if language == "zh" else "en"]
    match rule:
        case Drop():
            return words["drop"]
        case Pseudonym(scope=scope):
            return words[f"pseudonym {scope}"]
        case Codes(scope=scope):
            return words[f"codes {scope}"]
        case Round(step=step) if step:
            return words["round step"].format(step=step)
        case Round(to=to):
            return words["round to"].format(to=_PARTS_ZH[to] if language == "zh" else to)
        case Bucket(width=width) if width:
            return words["bucket width"].format(width=width)
        case Bucket(edges=edges):
            shown = ", ".join(edges[:12]) + (", ..." if len(edges) > 12 else "")
            return words["bucket edges"].format(count=len(edges) + 1, edges=shown)
        case Shift(days=days, unit=unit):
            return words["shift unit" if unit else "shift"].format(days=days, unit=unit)
