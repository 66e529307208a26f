// A page that came as a file: verifies the entries that are in it, with the proofs that are in it.
"use strict";

(async () => {
  const body = document.body;
  const bar = document.getElementById("own-verdict");
  if (!bar) return;
  const say = JSON.parse(body.dataset.sentences);
  const fill = (sentence, places) => sentence.replace(/\{(\w+)\}/g, (all, name) => String(places[name] ?? all));
  const number = (value) => Number(value).toLocaleString("en-US");
  const show = (tone, said) => {
    bar.className = `panel own ${tone}`;
    bar.querySelector(".said").textContent = said;
  };
  const places = (index) => document.querySelectorAll(`[data-entry="${Number(index)}"]`);

  const failed = (fault) => {
    const why = fill(say[fault.code] ?? fault.message, fault.places || {});
    if (fault.code === "no-crypto") return show("quiet", why);
    if (fault.entry === null || fault.entry === undefined) return show("bad", fill(say["fails-somewhere"], { why }));
    for (const place of places(fault.entry)) {
      place.classList.add("broken");
      if (place.tagName === "DETAILS") place.open = true;
    }
    return show("bad", fill(say.fails, { entry: number(fault.entry), why }));
  };

  try {
    if (!Check.able()) throw new Check.Fault("no-crypto");
    const bundles = JSON.parse(body.dataset.bundles);
    const note = Check.readNote(new TextEncoder().encode(body.dataset.note));
    const { signed, cosigned } = await Check.checkNote(note, body.dataset.vkey, JSON.parse(body.dataset.witnesses));
    for (const one of bundles) {
      const data = Check.unbase64(one.data);
      const proof = one.proof.map(Check.unbase64);
      const envelope = await Check.checkInclusion({ data, index: one.index, proof, note });
      await Check.checkFields(envelope, one.fields);
      for (const place of places(one.index)) {
        if (!place.matches("details.entry")) continue;
        place.querySelector(".envelope").textContent = new TextDecoder().decode(data);
        const shown = place.querySelector(".opened");
        shown.replaceChildren(
          ...one.fields.flatMap((field) => {
            const name = document.createElement("h3");
            name.textContent = field.name;
            const said = document.createElement("pre");
            said.textContent = Check.fieldText(field);
            return [name, said];
          }),
        );
        place.classList.add("verified");
      }
      show("quiet", fill(say.running, { done: number(one.index), total: number(note.size) }));
    }
    const parts = [
      fill(say[signed ? "page-holds" : "page-holds-unsigned"], { count: number(bundles.length), total: number(note.size) }),
    ];
    if (signed) parts.push(cosigned.length ? fill(say.cosigned, { names: cosigned.join(", ") }) : say.unanchored);
    show("good", parts.join(" "));
  } catch (error) {
    failed(error instanceof Check.Fault ? error : new Check.Fault("checkpoint"));
  } finally {
    body.dataset.checked = "yes";
  }
})();
