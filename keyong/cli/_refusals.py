"""A node's refusal in words: by the decision where a clause refused, by its code otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyong.text import explain, mark, translate_data

CODES: dict[str, tuple[str, str]] = {
    "agreement": (mark("the agreement is not in force at the node"), mark("agree anew: `keyong agreement request`")),
    "agreement-revoked": (
        mark("the agreement was revoked"),
        mark("ask the owner, then agree anew: `keyong agreement request`"),
    ),
    "agreement-suspended": (
        mark("the agreement is suspended"),
        mark("wait until whoever suspended it resumes it, or ask them"),
    ),
    "metered-time": (
        mark("the computing time that the agreement leaves is used up"),
        mark("ask for a new agreement: `keyong agreement request`"),
    ),
    "tariff": (mark("the agreement's tariff cannot be read"), mark("agree anew: `keyong agreement request`")),
    "budget": (
        mark("the dataset's privacy budget does not cover this job"),
        mark("ask for less (`keyong job run --rho`), wait for the next quarter, or ask the owner"),
    ),
    "noise": (
        mark("the dataset gives answers only under noise that its owner counts"),
        mark(
            "plan the job with --rho and --clip, agree on --rho unbounded in words, or have the code approved with --dp"
        ),
    ),
    "encoding": (
        mark("the plan's encoding, or the noise in it, does not hold what leaves"),
        mark("let `keyong job run` choose the encoding; under noise the model has floating point arrays alone"),
    ),
    "agreement-mismatch": (
        mark("the agreement is not between these parties about this dataset"),
        mark("plan the job again"),
    ),
    "expired": (
        mark("the plan, or the agreement it rests on, has expired"),
        mark("ask for a new agreement: `keyong agreement request`"),
    ),
    "not-yet-valid": (
        mark("the plan is dated in the future"),
        mark("compare the clocks of both machines (timedatectl)"),
    ),
    "data-version": (mark("the dataset has another version now"), mark("plan the job again")),
    "dataset-changed": (
        mark("the dataset's file is no longer the one that was published"),
        mark("its owner has to register it again"),
    ),
    "dataset-column-missing": (
        mark("the dataset's source lacks a column that was published"),
        mark("its owner has to register it again"),
    ),
    "dataset-empty": (mark("the dataset's source gives no row now"), mark("its owner has to look at the source")),
    "dataset-type": (
        mark("the dataset's source holds values of another type than was published"),
        mark("its owner has to mend it, or register it again"),
    ),
    "rules-key": (
        mark("the node lacks the key of the dataset's desensitisation rules"),
        mark("its owner has to restore it, or set the rules again"),
    ),
    "source-unavailable": (
        mark("the dataset's source is down or out of reach"),
        mark("try again, or ask the owner"),
    ),
    "source-credentials": (
        mark("the dataset's source refuses the node's credentials"),
        mark("its owner has to mend them"),
    ),
    "source-query": (
        mark("the dataset's source cannot be asked for what was registered"),
        mark("its owner has to look at the table or query"),
    ),
    "source-slow": (
        mark("the dataset's source did not give its rows in time"),
        mark("give the job more time with --round-seconds"),
    ),
    "not-made-up": (
        mark("a plan that accepts T0, no isolation, runs on data registered as made up alone, and these are not"),
        mark("use an agreement without --min-tier T0; or its owner registers made-up data with --simulated"),
    ),
    "tier-unavailable": (
        mark("the node's isolation is weaker than its roster entry, the plan or the agreement accepts"),
        mark("its owner can raise it (`keyong doctor`); for made-up data without isolation, agree with --min-tier T0"),
    ),
    "min-group-size": (
        mark("the data holds fewer subjects than the agreement demands behind a figure"),
        mark("ask the provider for an agreement about a larger dataset"),
    ),
    "no-such-dataset": (mark("the dataset is no longer registered at the node"), mark("see `keyong catalog list`")),
    "runtime-differs": (
        mark("the node runs jobs in another runtime"),
        mark("install the same versions on both sides, then `keyong node runtime build`"),
    ),
    "code-mismatch": (mark("the code is not what the plan was signed for"), mark("plan the job again")),
    "roster-changed": (mark("the membership changed since the plan was signed"), mark("plan the job again")),
    "clock": (
        mark("the node's clock and those of most others it heard are too far apart, so it judges no date"),
        mark("its owner has to set it (timedatectl set-ntp true)"),
    ),
    "agreement-before-ledger": (
        mark("the agreement is from before the node lost its ledger, so that it cannot know what was used of it"),
        mark("sign a new one (`keyong agreement request`)"),
    ),
    "restored": (
        mark("the plan is from before the node was restored from a backup"),
        mark("plan the job again"),
    ),
    "protection-unavailable": (
        mark("the node cannot give the protection that the plan asks for"),
        mark("upgrade the node"),
    ),
    "protocol-version": (
        mark("the node speaks a protocol without masks, and the plan asks for them"),
        mark("upgrade the node"),
    ),
    "masked-cohort": (
        mark("so many replies cannot be masked together"),
        mark("plan the job with fewer datasets"),
    ),
    "differencing": (
        mark("sums of other companies, or of other data of theirs, were opened beside this data before"),
        mark(
            "take the same companies and data, add noise (`--rho`), or ask owners to allow it (`keyong node openings`)"
        ),
    ),
    "survivors": (
        mark("too few nodes were left to open the round"),
        mark("run it again when the others are back"),
    ),
    "masking": (
        mark("a message of the masked round did not fit what was said before"),
        mark("run it again; if it stays, ask the coordinator's operator"),
    ),
    "mask-keys": (
        mark("the node had no keys to mask the round with: it was restarted, or the coordinator asked for none"),
        mark("run it again"),
    ),
    "share": (
        mark("shares that a node was sent do not open, or do not fit"),
        mark("run it again; if it stays, ask the coordinator's operator"),
    ),
    "withdrawn": (
        mark("a company took its reply back before the round was opened"),
        mark("run it again without it"),
    ),
    "round-aborted": (
        mark("this attempt of the round was given up before anything of it was opened"),
        mark("run it again when the others are back"),
    ),
    "round-abandoned": (
        mark("nobody opened the round in time"),
        mark("run it again when the others are back"),
    ),
    "output-refused": (
        mark("what the app replied may not leave the node: it is not what the plan declares"),
        mark("try it with `keyong job check`; which rule it was, the data's owner sees with `keyong job logs`"),
    ),
    "not-released": (
        mark("the owner did not release the output"),
        mark("ask them; the agreement has each output reviewed (`keyong node review` there)"),
    ),
    "limit-reached": (
        mark("the job hit a limit of the node other than memory and time"),
        mark("which one it was, the data's owner sees with `keyong job logs`"),
    ),
    "output-dtype": (
        mark("a reply held an array of another type than was sent"),
        mark("reply what was sent, or declare it"),
    ),
    "output-shape": (
        mark("a reply held an array of another shape than was sent"),
        mark("reply what was sent, or declare it"),
    ),
    "output-missing-array": (
        mark("a reply lacked an array that the plan expects"),
        mark("see the plan's output schema"),
    ),
    "output-extra-array": (
        mark("a reply held an array that the plan does not name"),
        mark("declare it in [tool.keyong.outputs]"),
    ),
    "output-missing-metric": (
        mark("a reply lacked a metric that the plan names"),
        mark("see the plan's output schema"),
    ),
    "output-extra-metric": (
        mark("a reply held a metric that the plan does not name"),
        mark("declare it in [tool.keyong.outputs]"),
    ),
    "output-metric-range": (
        mark("a metric lay outside its declared range"),
        mark("declare a wider range in [tool.keyong.outputs]"),
    ),
    "output-metric-type": (mark("a metric was not one number"), mark("reply scalars; lists leave as declared arrays")),
    "output-not-finite": (
        mark("a reply held NaN or infinity"),
        mark("the training diverged, or a metric divides by zero"),
    ),
    "output-too-large": (mark("a reply was larger than the plan allows"), mark("declare maximal-bytes, or reply less")),
    "output-config": (mark("a reply held a config record, which never leaves"), mark("take it out of the reply")),
    "app-exception": (
        mark("the app's code failed at the node"),
        mark("try it with `keyong job check`; the text stays with the data's owner"),
    ),
    "app-import": (mark("the app could not be loaded at the node"), mark("try it with `keyong job check`")),
    "app-syntax": (mark("the app has a syntax error"), mark("try it with `keyong job check`")),
    "app-missing-dependency": (
        mark("the runtime lacks a module that the app imports"),
        mark("`keyong job check` names it"),
    ),
    "app-no-reply": (mark("the app gave no reply"), mark("try it with `keyong job check`")),
    "app-reply-type": (mark("the app's answer is not a reply"), mark("try it with `keyong job check`")),
    "limit-wall": (mark("the job took longer than the plan allows"), mark("give it more time with --round-seconds")),
    "limit-memory": (mark("the job took more memory than the plan allows"), mark("train with less, or plan more")),
    "out-of-memory": (mark("the job took more memory than the plan allows"), mark("train with less, or plan more")),
    "query-schema": (
        mark("the query asks for what the dataset does not hold, or does not grant"),
        mark("see `keyong catalog show`"),
    ),
    "query-categories": (
        mark("a column that the query groups by has no declared categories at the node"),
        mark("its owner declares them when it registers the data"),
    ),
    "query-comparison": (
        mark("the query compares a column with a constant of another type"),
        mark("see `keyong catalog show`"),
    ),
    "query-unit": (
        mark("the query's noise is not reckoned for as many rows of one privacy unit as the dataset has"),
        mark("ask again; a dataset without --unit-rows is asked without noise"),
    ),
    "query-bounds": (
        mark("noise needs the range of each column that the query sums, and one has none"),
        mark("its owner declares bounds when it registers the data"),
    ),
    "query-noise": (
        mark("noise of that size cannot be drawn"),
        mark("ask for more or for less rho, or have owners declare narrower bounds"),
    ),
    "query-entity-twice": (
        mark("the query takes two datasets of one company"),
        mark("name one of each company's (`--dataset`)"),
    ),
    "disclosure-rules": (
        mark("the query's disclosure rules are weaker than the node's"),
        mark("upgrade the side that asks"),
    ),
    "bilateral-plan": (
        mark("the plan of a score or an intersection is not one that the node answers"),
        mark("upgrade the side that asks"),
    ),
    "count-missing": (
        mark("the agreement does not count its uses, and a score or an intersection needs that"),
        mark("agree anew with a count: `keyong agreement request`"),
    ),
    "too-few-subjects": (
        mark("too few rows or subjects stand behind this score"),
        mark("score fewer features, or another dataset"),
    ),
    "too-few-keys": (
        mark("one side has too few keys, or too many"),
        mark("ask about ten keys or more, and 50,000 at most"),
    ),
    "psi-missing": (
        mark("set intersection is not installed at the node"),
        mark("pip install 'keyong[psi]' at every member, then build the runtime anew: keyong node runtime build"),
    ),
    "psi-cheating": (
        mark("the asker's answer to the blinded keys is not of the protocol"),
        mark("upgrade the side that asks"),
    ),
    "asker-silent": (
        mark("the asker did not answer the blinded keys in time"),
        mark("ask again, with fewer keys or a better line"),
    ),
    "scoring-parameters": (
        mark("the encryption context has other parameters than scores are encrypted with"),
        mark("upgrade the side that asks"),
    ),
    "query-void": (
        mark("the sum of the contributor flags is not the nodes' own"),
        mark("ask again; if it stays, ask the coordinator's operator"),
    ),
    "cipher-parameters": (
        mark("the encryption context has other parameters than queries are encrypted with"),
        mark("upgrade the side that asks"),
    ),
    "cipher-context": (
        mark("the encryption context is not the one that the plan names"),
        mark("ask again; if it stays, ask the coordinator's operator"),
    ),
    "replay": (mark("this plan or step was presented before"), mark("plan the job again")),
    "node-offline": (mark("the node is not connected"), mark("its owner has to run `keyong node serve`")),
    "link-lost": (mark("the link to the node broke"), mark("try again when it is connected")),
    "no-answer": (mark("the node did not answer in time"), mark("try again, or give the job more time")),
    "ledger-unavailable": (
        mark("the node cannot write its ledger, so it runs nothing"),
        mark("its owner has to look at the node's disk"),
    ),
}
"""Refusals that no clause of an agreement made, by code."""


def explain_refusal(code: str, clause: Mapping[str, Any] | None) -> tuple[str, str]:
    """Sentence and hint for a node's refusal, in the language spoken now."""
    if clause and code not in CODES:
        from pydantic import ValidationError

        from federation.policy import refusal
        from federation.statements import DecisionRecord

        try:
            return explain(refusal(DecisionRecord.model_validate(dict(clause))))
        except (ValidationError, ValueError):
            pass  # an older or newer node: the code is what we have
    sentence, hint = CODES.get(code, ("", ""))
    return translate_data(sentence), translate_data(hint)
