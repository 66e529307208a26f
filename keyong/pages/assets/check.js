// Verifies a Keyong ledger from its C2SP files (tlog-tiles, tlog-checkpoint, signed-note), with WebCrypto and nothing else.
// RFC 6962 tree: leaf = SHA256(00 | entry), node = SHA256(01 | left | right). Faults carry a code and, where it can be named,
// the entry. Nothing here touches the page.
"use strict";

const Check = (() => {
  const TILE = 256;
  const DOMAINS = { json: "keyong/ledger/field/v1/json\0", raw: "keyong/ledger/field/v1/raw\0" };
  const utf8 = new TextEncoder();
  const text = (bytes) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);

  class Fault extends Error {
    constructor(code, entry = null, places = {}) {
      super(code);
      this.code = code;
      this.entry = entry;
      this.places = places;
    }
  }

  const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  const same = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);
  const unbase64 = (written) => Uint8Array.from(atob(written), (c) => c.charCodeAt(0));
  const joined = (...parts) => {
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  };

  const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const leafHash = (data) => sha256(joined(Uint8Array.of(0), data));
  const nodeHash = (left, right) => sha256(joined(Uint8Array.of(1), left, right));

  const completeRoot = async (hashes) => {
    let row = hashes;
    while (row.length > 1) {
      const above = [];
      for (let i = 0; i < row.length; i += 2) above.push(nodeHash(row[i], row[i + 1]));
      row = await Promise.all(above);
    }
    return row[0];
  };

  // The right edge of a growing tree: complete subtrees, largest first, as [height, hash].
  class Edge {
    constructor(stack = []) {
      this.stack = stack;
    }
    copy() {
      return new Edge(this.stack.slice());
    }
    async push(height, hash) {
      while (this.stack.length && this.stack[this.stack.length - 1][0] === height) {
        const [, left] = this.stack.pop();
        hash = await nodeHash(left, hash);
        height += 1;
      }
      this.stack.push([height, hash]);
    }
    async root() {
      if (!this.stack.length) return sha256(new Uint8Array());
      let root = this.stack[this.stack.length - 1][1];
      for (let i = this.stack.length - 2; i >= 0; i -= 1) root = await nodeHash(this.stack[i][1], root);
      return root;
    }
  }

  const tilePath = (level, number, width) => {
    const groups = [String(number % 1000).padStart(3, "0")];
    for (let rest = Math.floor(number / 1000); rest; rest = Math.floor(rest / 1000)) {
      groups.unshift("x" + String(rest % 1000).padStart(3, "0"));
    }
    const path = `tile/${level}/${groups.join("/")}`;
    return width === TILE ? path : `${path}.p/${width}`;
  };

  const entriesIn = (bytes, first, width) => {
    const found = [];
    let at = 0;
    while (at < bytes.length) {
      const size = at + 2 <= bytes.length ? bytes[at] * 256 + bytes[at + 1] : Infinity;
      if (at + 2 + size > bytes.length) throw new Fault("missing", first + found.length);
      found.push(bytes.subarray(at + 2, at + 2 + size));
      at += 2 + size;
    }
    if (found.length !== width) {
      const gap = found.findIndex((data, i) => envelopeOf(data, first + i).index !== first + i);
      throw new Fault("missing", first + (gap < 0 ? found.length : gap));
    }
    return found;
  };

  const hashesIn = (bytes, first, width) => {
    if (bytes.length !== 32 * width) throw new Fault("missing", first);
    return Array.from({ length: width }, (_, i) => bytes.subarray(32 * i, 32 * i + 32));
  };

  const envelopeOf = (data, index) => {
    try {
      const envelope = JSON.parse(text(data));
      if (envelope === null || typeof envelope !== "object" || typeof envelope.fields !== "object") throw new Error();
      return envelope;
    } catch {
      throw new Fault("modified", index);
    }
  };

  // -- signed notes -----------------------------------------------------------------------------------------------------

  const readNote = (bytes) => {
    try {
      const whole = text(bytes);
      const cut = whole.lastIndexOf("\n\n");
      const signed = whole.slice(0, cut + 1);
      const lines = signed.split("\n");
      if (cut < 0 || lines.length !== 4 || lines[3] !== "" || !/^(0|[1-9][0-9]{0,14})$/.test(lines[1])) throw new Error();
      const signatures = whole.slice(cut + 2).split("\n").filter(Boolean).map((line) => {
        const parts = /^— (\S+) (\S+)$/.exec(line);
        const value = unbase64(parts[2]);
        return { name: parts[1], id: hex(value.subarray(0, 4)), value: value.subarray(4) };
      });
      const root = unbase64(lines[2]);
      if (root.length !== 32) throw new Error();
      return { text: signed, origin: lines[0], size: Number(lines[1]), root, signatures };
    } catch {
      throw new Fault("checkpoint");
    }
  };

  const readKey = async (vkey) => {
    const [name, id, encoded] = vkey.split(/\+(.*?)\+(.*)/s);
    const key = unbase64(encoded);
    const computed = hex((await sha256(joined(utf8.encode(name + "\n"), key))).subarray(0, 4));
    if (computed !== id) throw new Fault("signature");
    return { name, id, type: key[0], raw: key.subarray(1) };
  };

  const importKey = async (key) => {
    try {
      return await crypto.subtle.importKey("raw", key.raw, { name: "Ed25519" }, false, ["verify"]);
    } catch {
      return null; // a browser without Ed25519
    }
  };

  // Throws where the ledger's signature is missing or bad; `signed` is null where the browser cannot tell.
  const checkNote = async (note, vkey, witnesses) => {
    const key = await readKey(vkey);
    const own = note.signatures.filter((one) => one.name === key.name && one.id === key.id);
    if (note.origin !== key.name || !own.length) throw new Fault("signature");
    const imported = await importKey(key);
    if (imported === null) return { signed: null, cosigned: [] };
    for (const one of own) {
      if (!(await crypto.subtle.verify("Ed25519", imported, one.value, utf8.encode(note.text)))) throw new Fault("signature");
    }
    const cosigned = [];
    for (const written of witnesses) {
      const witness = await readKey(written);
      for (const one of note.signatures.filter((s) => s.name === witness.name && s.id === witness.id)) {
        const time = new DataView(one.value.buffer, one.value.byteOffset, 8).getBigUint64(0);
        const message = utf8.encode(`cosignature/v1\ntime ${time}\n${note.text}`);
        const held = await crypto.subtle.verify("Ed25519", await importKey(witness), one.value.subarray(8), message);
        if (!held) throw new Fault("witness");
        cosigned.push(witness.name.replace(/\/witness$/, "").split("/").pop());
      }
    }
    return { signed: true, cosigned: Array.from(new Set(cosigned)) };
  };

  // -- the whole ledger -------------------------------------------------------------------------------------------------

  // `fetchFile(path)` gives bytes; `seen` is {size, root} from an earlier visit; `tell(done, total)` after each tile.
  const checkAll = async ({ fetchFile, vkey, witnesses, seen, tell, signal }) => {
    const note = readNote(await fetchFile("checkpoint"));
    const { signed, cosigned } = await checkNote(note, vkey, witnesses);
    if (seen && seen.size > note.size) throw new Fault("rolled-back", null, { size: seen.size });
    const edge = new Edge();
    let previous = new Uint8Array(32);
    let time = "";
    let earlier = seen && seen.size === 0 ? await edge.root() : null;
    const fetched = (number) => {
      const width = Math.min(TILE, note.size - number * TILE);
      return Promise.all([fetchFile(tilePath("entries", number, width)), fetchFile(tilePath(0, number, width)), width]);
    };
    let coming = note.size ? fetched(0) : null;
    for (let number = 0; number * TILE < note.size; number += 1) {
      if (signal && signal.aborted) throw new Fault("stopped");
      const [entries, stored, width] = await coming;
      coming = (number + 1) * TILE < note.size ? fetched(number + 1) : null;
      if (coming) coming.catch(() => {}); // told when it is waited for
      const first = number * TILE;
      const data = entriesIn(entries, first, width);
      const leaves = await Promise.all(data.map(leafHash));
      const claimed = hashesIn(stored, first, width);
      for (let i = 0; i < width; i += 1) {
        if (!same(leaves[i], claimed[i])) throw new Fault("modified", first + i);
        const envelope = envelopeOf(data[i], first + i);
        if (envelope.index !== first + i) throw new Fault("order", first + i);
        // The entry that follows names the one before it: a difference speaks against the one before.
        if (envelope.prev !== hex(previous)) throw new Fault(first + i ? "modified" : "order", Math.max(0, first + i - 1));
        if (envelope.time < time) throw new Fault("order", first + i);
        previous = leaves[i];
        time = envelope.time;
      }
      if (seen && seen.size > first && seen.size <= first + width) {
        const then = edge.copy();
        for (const leaf of leaves.slice(0, seen.size - first)) await then.push(0, leaf);
        earlier = await then.root();
      }
      if (width === TILE) await edge.push(8, await completeRoot(leaves));
      else for (const leaf of leaves) await edge.push(0, leaf);
      if (tell) tell(first + width, note.size);
    }
    if (!same(await edge.root(), note.root)) throw new Fault("root", note.size ? note.size - 1 : null);
    if (seen && hex(earlier) !== seen.root) throw new Fault("rolled-back", null, { size: seen.size });
    return { size: note.size, root: hex(note.root), signed, cosigned };
  };

  // -- one entry --------------------------------------------------------------------------------------------------------

  // Its tile is hashed anew; the tiles above it lead to the root.
  const checkEntry = async ({ fetchFile, vkey, witnesses, index }) => {
    const note = readNote(await fetchFile("checkpoint"));
    const { signed, cosigned } = await checkNote(note, vkey, witnesses);
    if (index >= note.size) throw new Fault("missing", index);
    let number = Math.floor(index / TILE);
    const width = Math.min(TILE, note.size - number * TILE);
    const first = number * TILE;
    const [entries, stored] = await Promise.all([
      fetchFile(tilePath("entries", number, width)),
      fetchFile(tilePath(0, number, width)),
    ]);
    const data = entriesIn(entries, first, width);
    let hashes = await Promise.all(data.map(leafHash));
    const claimed = hashesIn(stored, first, width);
    const wrong = hashes.findIndex((leaf, i) => !same(leaf, claimed[i]));
    if (wrong >= 0) throw new Fault("modified", first + wrong);
    const edge = new Map(); // by level, the hashes of the last, partial tile
    let level = 0;
    while (hashes.length === TILE) {
      const root = await completeRoot(hashes);
      const place = number % TILE;
      number = Math.floor(number / TILE);
      level += 1;
      const there = Math.floor(note.size / TILE ** level) - number * TILE;
      hashes = hashesIn(await fetchFile(tilePath(level, number, Math.min(TILE, there))), index, Math.min(TILE, there));
      if (!same(hashes[place], root)) throw new Fault("modified", index);
    }
    edge.set(level, hashes);
    const whole = new Edge();
    for (let high = 6; high >= 0; high -= 1) {
      const count = Math.floor(note.size / TILE ** high) % TILE;
      if (!count) continue;
      const last = Math.floor(note.size / TILE ** (high + 1));
      const row = edge.has(high)
        ? edge.get(high)
        : hashesIn(await fetchFile(tilePath(high, last, count)), index, count);
      for (const hash of row) await whole.push(8 * high, hash);
    }
    if (!same(await whole.root(), note.root)) throw new Fault("root", index);
    return { envelope: envelopeOf(data[index - first], index), data: data[index - first], size: note.size, signed, cosigned };
  };

  // RFC 9162, 2.1.3.2: an entry that comes with its own proof.
  const checkInclusion = async ({ data, index, proof, note }) => {
    let at = index;
    let last = note.size - 1;
    let hash = await leafHash(data);
    if (index >= note.size) throw new Fault("missing", index);
    for (const one of proof) {
      if (last === 0) throw new Fault("modified", index);
      if (at % 2 === 1 || at === last) {
        hash = await nodeHash(one, hash);
        while (at % 2 === 0 && at !== 0) {
          at = Math.floor(at / 2);
          last = Math.floor(last / 2);
        }
      } else {
        hash = await nodeHash(hash, one);
      }
      at = Math.floor(at / 2);
      last = Math.floor(last / 2);
    }
    if (last !== 0 || !same(hash, note.root)) throw new Fault("modified", index);
    const envelope = envelopeOf(data, index);
    if (envelope.index !== index) throw new Fault("order", index);
    return envelope;
  };

  // Opened fields against the entry's commitments.
  const checkFields = async (envelope, fields) => {
    for (const one of fields) {
      const opened = await sha256(joined(utf8.encode(DOMAINS[one.form] ?? ""), unbase64(one.salt), unbase64(one.payload)));
      if (!Object.hasOwn(envelope.fields, one.name) || envelope.fields[one.name] !== hex(opened)) {
        throw new Fault("field", envelope.index, { field: one.name });
      }
    }
  };

  // What a verified field says, for people: a statement by its payload.
  const fieldText = (one) => {
    const payload = new TextDecoder().decode(unbase64(one.payload));
    let value = payload;
    try {
      value = JSON.parse(payload);
      if (one.form === "raw") value = JSON.parse(text(unbase64(value.payload)));
    } catch {
      value = payload; // no statement: its bytes as they are
    }
    const said = typeof value === "string" ? value : JSON.stringify(value, null, 1);
    return said.replace(/[^\P{C}\n\t]/gu, "\ufffd");
  };

  const able = () => Boolean(globalThis.crypto && crypto.subtle);
  return { able, checkAll, checkEntry, checkFields, checkInclusion, checkNote, fieldText, readNote, unbase64, Fault };
})();
