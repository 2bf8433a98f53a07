"use strict";

/** Shared by both pages: elements by id, elements made, and requests. */

const $ = (id) => document.getElementById(id);

/** An element with properties and children. Text is only ever set as text. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** JSON in, JSON out. Throws Refused where the server says no, TypeError where it cannot be reached. */
async function request(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const text = await response.text();
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  if (!response.ok) {
    const detail = value && typeof value.detail === "string" ? value.detail : `The server answered ${response.status}.`;
    throw new Refused(response.status, detail);
  }
  return value;
}

const pictureOf = (task, number, panel, size) => `api/pictures/${task.id}/${number}/${panel}?size=${size}`;

/** Tasks of a kind, as people call them. */
const MANY = { image: "pictures", neuron: "patches", spot: "spots" };

/** Seconds in words that people use. */
function inWords(seconds) {
  if (seconds < 90) {
    return `${Math.max(1, Math.round(seconds))} s`;
  }
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
