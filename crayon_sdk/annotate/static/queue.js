"use strict";

/**
 * Answers on their way: kept on this device until the server has said that they are on its disk, sent in
 * order, and sent again when it cannot be reached. A number of one's own makes sending twice harmless.
 *
 * Each is kept under a key of its own, so that several tabs do not overwrite each other's; a tab also sends
 * what others have left, since they may have been closed.
 */
class Outbox {
  constructor({ onProgress, onTrouble, onLost }) {
    this.onProgress = onProgress;
    this.onTrouble = onTrouble;
    this.onLost = onLost;
    this.waiting = [];
    this.sending = null;
    this.changes = 0; // of what waits: whoever asks for numbers knows whether they still hold
    this.last = 0;
    this.only = null; // a name, where the link is one person's: what others left here waits for their link
    this.adopt();
  }

  /** Take in what other tabs have left, or this page before it was loaded again; forget what they have sent. */
  adopt() {
    this.split();
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(Outbox.PREFIX)).sort();
    const left = new Set(keys);
    this.waiting = this.waiting.filter((entry) => (!entry.stored || left.has(entry.key)) && this.mine(entry));
    const known = new Set(this.waiting.map((entry) => entry.key));
    for (const key of keys.filter((each) => !known.has(each))) {
      const entry = Outbox.read(key);
      if (entry && this.mine(entry)) {
        this.waiting.push({ ...entry, key, stored: true });
      }
    }
    this.waiting.sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  mine(entry) {
    return this.only === null || entry.person === this.only;
  }

  static read(key) {
    try {
      const found = JSON.parse(localStorage.getItem(key));
      return found && typeof found.person === "string" && (found.click || found.undo) ? found : null;
    } catch {
      return null;
    }
  }

  /** What an earlier version of this page kept: all of it under one key. */
  split() {
    try {
      const found = JSON.parse(localStorage.getItem("crayon.outbox") || "[]");
      for (const entry of Array.isArray(found) ? found : []) {
        this.keep(entry);
      }
    } catch {
      // nothing that could be read
    }
    localStorage.removeItem("crayon.outbox");
  }

  /** Put an entry behind all others, of this tab and on this device. */
  keep(entry) {
    this.last = Math.max(Date.now(), this.last + 1);
    const key = `${Outbox.PREFIX}${this.last}.${Outbox.uid().slice(0, 8)}`;
    let stored = true;
    try {
      localStorage.setItem(key, JSON.stringify(entry));
    } catch {
      stored = false; // no room on this device: it waits on this page only
    }
    this.waiting.push({ ...entry, key, stored });
    this.changes += 1;
  }

  static uid() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Answers of a person that wait. */
  of(person) {
    return this.waiting.filter((entry) => entry.click && entry.person === person);
  }

  get tasks() {
    return this.waiting.filter((entry) => entry.click).map((entry) => entry.click.task);
  }

  /** Keep an answer to a kind of task, and send it. */
  answer(person, source, click, kind) {
    this.keep({ person, source, click, kind });
    this.flush();
  }

  /** Take an answer back, also one that still waits: another tab may be sending it. */
  undo(person, uid) {
    this.keep({ person, undo: uid });
    this.flush();
  }

  /** Send what waits; resolves when nothing does. */
  flush() {
    if (this.sending === null) {
      this.sending = this.send().finally(() => {
        this.sending = null;
      });
    }
    return this.sending;
  }

  async send() {
    let pause = 250;
    for (this.adopt(); this.waiting.length > 0; this.adopt()) {
      const batch = this.nextBatch();
      try {
        const progress = await this.post(batch);
        this.done(batch);
        pause = 250;
        this.onTrouble("");
        this.onProgress(progress, batch[0].person);
        if (progress.unknown && progress.unknown.length > 0) {
          this.onLost(`${progress.unknown.length} answers are about pictures that are not asked about any more.`);
        } else if (progress.changed && progress.changed.length > 0) {
          this.onLost(`${progress.changed.length} answers were not taken: others of the same number are there.`);
        }
      } catch (error) {
        const final = error instanceof Refused && error.status >= 400 && error.status < 500
          && ![401, 408, 409, 429].includes(error.status);
        if (final) {
          this.done(batch);
          this.onLost(`Not taken: ${error.message}`);
          continue;
        }
        const reason = error instanceof Refused ? error.message : "The server cannot be reached.";
        this.onTrouble(`${reason} Your answers (${this.waiting.length}) are kept on this device and sent when it is back.`);
        await new Promise((wake) => setTimeout(wake, pause));
        pause = Math.min(2 * pause, 5000);
      }
    }
  }

  /** Answers of one person in a row go together; taking one back goes alone. */
  nextBatch() {
    const [first] = this.waiting;
    if (first.undo) {
      return [first];
    }
    const end = this.waiting.findIndex(
      (entry) => entry.undo || entry.person !== first.person || entry.source !== first.source,
    );
    return this.waiting.slice(0, Math.min(end < 0 ? this.waiting.length : end, 48));
  }

  post(batch) {
    const [{ person, source, undo }] = batch;
    if (undo) {
      return request("api/undo", { person, uid: undo });
    }
    return request("api/answers", { person, source, answers: batch.map((entry) => entry.click) });
  }

  done(batch) {
    for (const { key } of batch) {
      localStorage.removeItem(key);
    }
    this.waiting = this.waiting.filter((entry) => !batch.includes(entry));
    this.changes += 1;
  }
}

Outbox.PREFIX = "crayon.outbox.";
