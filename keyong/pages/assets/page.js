// What the reader's own browser found out, on every page: the bar at the top, red rows, the check itself.
"use strict";

(() => {
  const body = document.body;
  const say = JSON.parse(body.dataset.sentences || "{}");
  const vkey = body.dataset.vkey;
  if (!vkey) return;
  const witnesses = JSON.parse(body.dataset.witnesses);
  const origin = body.dataset.origin;
  const KEPT = `keyong-check:${origin}`;
  const SEEN = `keyong-seen:${origin}`;
  const bar = document.getElementById("own-verdict");

  const fill = (sentence, places) => sentence.replace(/\{(\w+)\}/g, (all, name) => String(places[name] ?? all));
  const number = (value) => Number(value).toLocaleString("en-US");
  const read = (store, key) => {
    try {
      return JSON.parse(store.getItem(key));
    } catch {
      return null;
    }
  };
  const keep = (store, key, value) => {
    try {
      store.setItem(key, JSON.stringify(value));
    } catch {
      // A browser that keeps nothing still checks.
    }
  };

  const fetchFile = async (path) => {
    const answer = await fetch(`/tiles/${path}`, { credentials: "same-origin", cache: "no-store" });
    if (answer.status === 404) throw new Check.Fault("missing");
    if (!answer.ok) throw new Check.Fault("unreachable");
    return new Uint8Array(await answer.arrayBuffer());
  };

  const why = (fault) => fill(say[fault.code] ?? say.unreachable, fault.places || {});
  const sentence = (fault) => {
    if (["stopped", "unreachable", "no-crypto"].includes(fault.code)) return say[fault.code];
    return fault.entry === null || fault.entry === undefined
      ? fill(say["fails-somewhere"], { why: why(fault) })
      : fill(say.fails, { entry: number(fault.entry), why: why(fault) });
  };

  const mark = (entry) => {
    for (const row of document.querySelectorAll(`[data-entry="${Number(entry)}"]`)) row.classList.add("broken");
  };

  const show = (tone, text, entry = null) => {
    bar.className = `own ${tone}`;
    bar.querySelector(".said").textContent = text;
    const link = bar.querySelector("a");
    link.hidden = false;
    if (entry !== null) {
      link.href = `/entry/${entry}`;
      link.textContent = bar.dataset.entry.replace("{index}", number(entry));
      mark(entry);
    }
  };

  const failed = (error) => {
    const fault = error instanceof Check.Fault ? error : new Check.Fault("unreachable");
    const broken = !["stopped", "unreachable", "no-crypto"].includes(fault.code);
    const text = sentence(fault);
    if (broken) keep(sessionStorage, KEPT, { tone: "bad", text, entry: fault.entry });
    show(broken ? "bad" : "quiet", text, broken ? fault.entry : null);
  };

  const restored = read(sessionStorage, KEPT);
  if (restored) show(restored.tone, restored.text, restored.entry ?? null);

  // -- the whole ledger ---------------------------------------------------------------------------------------------------

  const whole = document.getElementById("check-all");
  const progress = document.getElementById("check-progress");
  const stop = document.getElementById("check-stop");
  let running = null;

  const checkWhole = async () => {
    running = new AbortController();
    whole.disabled = true;
    stop.hidden = progress.hidden = false;
    const seen = read(localStorage, SEEN);
    try {
      const found = await Check.checkAll({
        fetchFile, vkey, witnesses, seen, signal: running.signal,
        tell: (done, total) => {
          progress.max = total;
          progress.value = done;
          show("quiet", fill(say.running, { done: number(done), total: number(total) }));
        },
      });
      const parts = [fill(say[found.signed ? "holds" : "holds-unsigned"], { total: number(found.size) })];
      if (seen) parts.push(fill(say.extends, { size: number(seen.size), time: seen.time }));
      if (found.signed) parts.push(found.cosigned.length ? fill(say.cosigned, { names: found.cosigned.join(", ") }) : say.unanchored);
      const text = parts.join(" ");
      const time = new Date().toISOString().slice(0, 16).replace("T", " ");
      keep(localStorage, SEEN, { size: found.size, root: found.root, time });
      keep(sessionStorage, KEPT, { tone: "good", text });
      show("good", text);
      document.getElementById("check-root").textContent = found.root;
    } catch (error) {
      failed(error);
    } finally {
      whole.disabled = false;
      stop.hidden = progress.hidden = true;
      body.dataset.checked = "yes";
    }
  };

  if (whole) {
    whole.addEventListener("click", checkWhole);
    stop.addEventListener("click", () => running.abort());
    if (!Check.able()) failed(new Check.Fault("no-crypto"));
    else if (whole.dataset.auto === "yes") checkWhole();
  }

  // -- one entry ----------------------------------------------------------------------------------------------------------

  const one = document.getElementById("check-entry");

  const checkOne = async () => {
    const index = Number(one.dataset.index);
    const fields = JSON.parse(one.dataset.fields);
    const said = one.querySelector(".said");
    try {
      if (!Check.able()) throw new Check.Fault("no-crypto");
      const found = await Check.checkEntry({ fetchFile, vkey, witnesses, index });
      await Check.checkFields(found.envelope, fields);
      for (const field of fields) {
        const place = document.querySelector(`[data-field="${CSS.escape(field.name)}"]`);
        place.querySelector("pre").textContent = Check.fieldText(field);
        place.classList.add("verified");
      }
      document.getElementById("envelope").textContent = new TextDecoder().decode(found.data);
      const kind = fields.length ? "entry-holds" : "sealed-entry-holds";
      const name = found.signed ? kind : "entry-holds-unsigned";
      said.textContent = fill(say[name], { total: number(found.size) });
      one.className = "panel own good";
    } catch (error) {
      const fault = error instanceof Check.Fault ? error : new Check.Fault("unreachable");
      said.textContent = sentence(fault);
      const broken = !["unreachable", "no-crypto"].includes(fault.code);
      one.className = `panel own ${broken ? "bad" : "quiet"}`;
      if (broken) failed(fault);
    } finally {
      body.dataset.checked = "yes";
    }
  };

  if (one) checkOne();
})();
