"use strict";
/* A shop front on top of the service: shelves come from /v1/recommendations, what is looked at and
   bought goes to /v1/events, and the shelf "for you" is asked for anew after each. */
const $ = (id) => document.getElementById(id);
const names = new Map();
let visitor = load("aisle-visitor") || newVisitor();
let shown = null; // the open product, with the request_id of the answer that showed it

function load(key) { try { return localStorage.getItem(key); } catch { return null; } }
function newVisitor() {
  const id = "visitor-" + Math.random().toString(36).slice(2, 8);
  try { localStorage.setItem("aisle-visitor", id); } catch { /* remembered for this page only */ }
  return id;
}

async function call(method, path, body) {
  const answer = await fetch(path, {
    method, headers: body ? { "Content-Type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.detail || answer.statusText);
  return data;
}

async function attempt(work) {
  try { await work(); $("status").textContent = ""; }
  catch (error) { $("status").textContent = "That did not work: " + error.message; }
}

/* A picture from the item's id: always the same for the same item; its category gives the colour. */
function hash(text) {
  let h = 2166136261;
  for (const c of text) h = Math.imul(h ^ c.codePointAt(0), 16777619) >>> 0;
  return h;
}
function picture(item) {
  const ns = "http://www.w3.org/2000/svg";
  const hue = hash((item.category || item.id).split(" > ").slice(0, 2).join("")) % 360;
  let seed = hash(item.id);
  const next = (n) => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return (seed >>> 8) % n; };
  const add = (parent, name, attributes) => {
    const element = document.createElementNS(ns, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return parent.appendChild(element);
  };
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 160 120");
  svg.setAttribute("aria-hidden", "true");
  add(svg, "rect", { width: 160, height: 120, fill: `hsl(${hue} 45% 88%)` });
  add(svg, "circle", { cx: 20 + next(120), cy: 15 + next(40), r: 18 + next(30), fill: `hsl(${(hue + 30) % 360} 55% 76%)` });
  const tone = `hsl(${hue} 45% ${34 + next(22)}%)`;
  const x = 52 + next(20), w = 36 + next(24);
  if (next(3) === 0) add(svg, "rect", { x, y: 38, width: w, height: 66, rx: 4 + next(18), fill: tone });
  else if (next(2) === 0) add(svg, "path", { d: `M${x} 104 Q${x - 12} 60 ${x + w / 2} ${24 + next(16)} Q${x + w + 12} 60 ${x + w} 104 Z`, fill: tone });
  else add(svg, "ellipse", { cx: x + w / 2, cy: 74, rx: w / 2 + 8, ry: 30, fill: tone });
  add(svg, "rect", { x: x + 6, y: 62 + next(18), width: w - 12, height: 6 + next(8), rx: 3, fill: `hsl(${(hue + 180) % 360} 50% 82%)` });
  add(svg, "rect", { y: 104, width: 160, height: 16, fill: `hsl(${hue} 30% 70%)` });
  return svg;
}

function price(item) {
  if (item.price === undefined) return "";
  try { return new Intl.NumberFormat(undefined, { style: "currency", currency: item.currency || "GBP" }).format(item.price); }
  catch { return String(item.price); }
}

function card(item, requestId) {
  const entry = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "card";
  const text = document.createElement("span");
  text.className = "text";
  const line = (className, content) => {
    if (!content) return;
    const span = document.createElement("span");
    span.className = className;
    span.textContent = content;
    text.append(span);
  };
  const because = (item.explanation?.because || []).map((id) => names.get(id)).filter(Boolean);
  line("title", item.title || item.id);
  line("price", price(item));
  line("why", because.length ? "because of " + because[0] : "");
  button.append(picture(item), text);
  button.addEventListener("click", () => attempt(() => open(item, requestId)));
  entry.append(button);
  names.set(item.id, item.title || item.id);
  return entry;
}

async function fill(shelf, request) {
  const answer = await call("POST", "/v1/recommendations", { explain: true, limit: 12, ...request });
  $(shelf).replaceChildren(...answer.items.map((item) => card(item, answer.request_id)));
  return answer;
}

async function refresh() {
  const answer = await fill("for-you", { scenario: "for_you", user_id: visitor });
  const known = answer.items.some((item) => item.sources.includes("vector"));
  $("for-you-note").textContent = known ? "From what you looked at, newest first." : "Look at something, and this shelf follows.";
}

async function record(type) {
  await call("POST", "/v1/events", {
    user_id: visitor, item_id: shown.item.id, type, request_id: shown.requestId,
    event_id: crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2),
  });
}

async function open(item, requestId) {
  shown = { item, requestId };
  $("product").hidden = false;
  $("product-title").textContent = item.title || item.id;
  $("product-category").textContent = item.category || "";
  $("product-price").textContent = price(item);
  $("product-picture").replaceChildren(picture(item));
  $("product-title").focus();
  $("product").scrollIntoView({ block: "start" });
  const seen = document.createElement("li");
  seen.textContent = item.title || item.id;
  $("seen").prepend(seen);
  await record("view");
  await Promise.all([refresh(), fill("related", { scenario: "related", items: [item.id], user_id: visitor, limit: 6 })]);
}

$("buy").addEventListener("click", () => attempt(async () => {
  await record("purchase");
  await refresh();
  $("product").hidden = true;
  $("for-you-title").focus();
}));
$("close").addEventListener("click", () => { $("product").hidden = true; $("for-you-title").focus(); });
$("new-visitor").addEventListener("click", () => attempt(async () => {
  visitor = newVisitor();
  $("visitor").textContent = visitor;
  $("seen").replaceChildren();
  $("product").hidden = true;
  await refresh();
}));
$("visitor").textContent = visitor;
attempt(async () => { await fill("popular", { scenario: "popular" }); await refresh(); });
