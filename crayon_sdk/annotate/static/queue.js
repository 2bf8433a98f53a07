"use strict";

/**
 * Answers on their way: kept on this device until the server has said that they are on its disk, sent in
 * order, and sent again when it cannot be reached. A number of one's own makes sending twice harmless.
 */
class Outbox {
  constructor({ onProgress, onTrouble, onLost }) {
    this.onProgress = onProgress;
    this.onTrouble = onTrouble;
    this.onLost = onLost;
    this.waiting = Outbox.stored();
    this.inFlight = 0;
    this.sending = null;
    this.changes = 0; // of what waits: whoever asks for numbers knows whether they still hold
  }

  static stored() {
    try {
      const found = JSON.parse(localStorage.getItem("crayon.outbox") || "[]");
      return Array.isArray(found) ? found : [];
    } catch {
      return [];
    }
  }

  static uid() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  get tasks() {
    return this.waiting.filter((entry) => entry.click).map((entry) => entry.click.task);
  }

  save() {
    this.changes += 1;
    localStorage.setItem("crayon.outbox", JSON.stringify(this.waiting));
  }

  /** Keep an answer, and send it. */
  answer(person, source, click) {
    this.waiting.push({ person, source, click });
    this.save();
    this.flush();
  }

  /** Take an answer back: out of the box if it is still in it, else by telling the server. */
  undo(person, uid) {
    const place = this.waiting.findIndex((entry) => entry.click && entry.click.uid === uid);
    if (place >= this.inFlight) {
      this.waiting.splice(place, 1);
    } else {
      this.waiting.push({ person, undo: uid });
    }
    this.save();
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
    while (this.waiting.length > 0) {
      const batch = this.nextBatch();
      this.inFlight = batch.length;
      try {
        const progress = await this.post(batch);
        this.done(batch);
        pause = 250;
        this.onTrouble("");
        this.onProgress(progress);
        if (progress.unknown && progress.unknown.length > 0) {
          this.onLost(`${progress.unknown.length} answers are about pictures that are not asked about any more.`);
        }
      } catch (error) {
        const final = error instanceof Refused && error.status >= 400 && error.status < 500
          && ![401, 408, 409, 429].includes(error.status);
        if (final) {
          this.done(batch);
          this.onLost(`Not taken: ${error.message}`);
          continue;
        }
        this.inFlight = 0;
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
    this.waiting.splice(0, batch.length);
    this.inFlight = 0;
    this.save();
  }
}
