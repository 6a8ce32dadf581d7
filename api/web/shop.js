/* A shop front on top of the service: shelves come from /v1/recommendations, what is looked at and
   bought goes to /v1/events, and the shelf "for you" is asked for anew after each. Titles and all
   else of the catalogue enter the page as text, never as markup, and no picture is fetched: each is
   drawn here from the product's category and colour. */
const $ = (id) => document.getElementById(id);
const HISTORY_SHOWN = 8, SHELF = 10;
const items = new Map(); // what is known of each item: its metadata, and request_id of the answer that showed it
let visitor = load("aisle-visitor") || newVisitor();
let token = "";       // kept for this page only
let remembers = true; // false: the server wants a token for events; only this page knows what was looked at
let trail = [];       // this page's own memory, newest first: {item_id, type}
let shown = null;     // the open product
let opener = null;    // the card that opened it, for the way back

function load(key) { try { return localStorage.getItem(key); } catch { return null; } }
function newVisitor() {
  const id = "visitor-" + Math.random().toString(36).slice(2, 8);
  try { localStorage.setItem("aisle-visitor", id); } catch { /* remembered for this page only */ }
  return id;
}
function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/* ---- the service ---- */

async function call(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (token) headers.Authorization = "Bearer " + token;
  let answer;
  try { answer = await fetch(path, { method, headers, body: body ? JSON.stringify(body) : undefined }); }
  catch { throw new Error("the service cannot be reached; is aisle serve still running?"); }
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(data.detail || answer.statusText), { code: answer.status });
  return { ...data, timing: answer.headers.get("Server-Timing") || "" };
}
async function attempt(work) {
  try { await work(); $("status").textContent = ""; }
  catch (error) {
    if (error.code === 401) askForToken("This server was started with a token and shows its products only to those who have it.");
    else $("status").textContent = "That did not work: " + error.message;
  }
}
function askForToken(text) {
  $("notice-text").textContent = token ? "The server does not accept that token. " + text : text;
  $("token-form").hidden = $("notice").hidden = false;
}
/* What needs the token may be refused: then the page says so and goes on with its own memory. */
async function withToken(work) {
  if (!remembers) return undefined;
  try { return await work(); }
  catch (error) {
    if (error.code !== 401) throw error;
    remembers = false;
    askForToken("This server was started with a token, so it does not store what you click here without it. " +
      "“For you” still follows what you look at until you leave this page.");
    return undefined;
  }
}
async function lookUp(id) {
  if (!items.has(id)) items.set(id, await call("GET", "/v1/items/" + encodeURIComponent(id)).catch(() => ({ id })));
  return items.get(id);
}

/* ---- pictures: 160 × 120, parts as [tone, path], standing on y = 104 ---- */

const dot = (x, y, r) => `M${x} ${y - r}a${r} ${r} 0 1 1 0 ${2 * r}a${r} ${r} 0 1 1 0 ${-2 * r}Z`;
const SHAPES = {
  lamp: [["dark", "M77 58h6v38h-6ZM58 96h44v8H58Z"], ["main", "M62 22h36l16 38H46Z"]],
  floorlamp: [["dark", "M78 40h4v58h-4ZM62 98h36v6H62Z"], ["main", "M66 14h28l12 28H54Z"]],
  lantern: [["dark", "M62 36a18 18 0 0 1 36 0h-5a13 13 0 0 0-26 0Z"], ["light", "M62 44h36v48H62Z"], ["main", "M56 36h48v9H56ZM56 92h48v12H56ZM62 44h4v48h-4ZM94 44h4v48h-4Z"], ["glow", "M80 56q12 18 0 30q-12-12 0-30Z"]],
  shade: [["main", "M60 34h40l24 70H36Z"], ["dark", "M58 32h44v5H58ZM38 98h84v6H36Z"]],
  bulb: [["glow", "M80 20a28 28 0 0 1 14 52v10H66V72a28 28 0 0 1 14-52Z"], ["dark", "M66 84h28v6H66ZM68 92h24v6H68ZM73 98h14v6H73Z"]],
  plug: [["dark", "M64 24h6v20h-6ZM90 24h6v20h-6Z"], ["main", "M52 44h56v50a10 10 0 0 1-10 10H62a10 10 0 0 1-10-10Z"], ["light", dot(80, 74, 13)]],
  candle: [["main", "M62 52h36v52H62Z"], ["dark", "M79 40h2v12h-2Z"], ["glow", "M80 16q13 17 0 26q-13-9 0-26Z"]],
  bottle: [["dark", "M68 22h24v14H68Z"], ["main", "M70 36h20v14q14 4 14 16v38H56V66q0-12 14-16Z"], ["light", "M62 72h36v20H62Z"]],
  jar: [["main", "M50 56h60v38a10 10 0 0 1-10 10H60a10 10 0 0 1-10-10Z"], ["dark", "M46 38h68v16H46Z"], ["light", "M60 68h40v18H60Z"]],
  cushion: [["main", "M42 32q38 9 76 0q-7 36 0 72q-38-8-76 0q7-36 0-72Z"], ["light", "M54 46q26 6 52 0v5q-26 6-52 0ZM54 86q26-6 52 0v5q-26-6-52 0Z"]],
  fabric: [["main", "M44 82h72a8 8 0 0 1 8 8v6a8 8 0 0 1-8 8H44a8 8 0 0 1-8-8v-6a8 8 0 0 1 8-8Z"], ["dark", "M48 60h64a8 8 0 0 1 8 8v5a8 8 0 0 1-8 8H48a8 8 0 0 1-8-8v-5a8 8 0 0 1 8-8Z"], ["light", "M52 40h56a8 8 0 0 1 8 8v3a8 8 0 0 1-8 8H52a8 8 0 0 1-8-8v-3a8 8 0 0 1 8-8Z"]],
  roll: [["main", "M54 54h74v50H54Z"], ["light", "M108 54h8v50h-8Z"], ["dark", dot(54, 79, 25)], ["light", dot(54, 79, 14)], ["dark", dot(54, 79, 6)]],
  vase: [["main", "M68 22h24v8q-4 14 10 30q14 24-6 44H64q-20-20-6-44q14-16 10-30Z"], ["light", "M55 68h50l1 8H54Z"]],
  frame: [["main", "M44 26h72v78H44Z"], ["light", "M54 36h52v58H54Z"], ["dark", "M54 94l18-28 13 18 8-10 13 20Z"]],
  clock: [["main", dot(80, 64, 40)], ["light", dot(80, 64, 32)], ["dark", "M78 42h4v20h14v4H78Z"]],
  pan: [["dark", "M96 66h48v8H96Z"], ["main", "M26 62h74v14a26 26 0 0 1-26 26H52a26 26 0 0 1-26-26Z"], ["light", "M26 62h74v6H26Z"]],
  pot: [["dark", "M34 62h92v8H34ZM74 36h12v12H74Z"], ["main", "M46 56h68v36a12 12 0 0 1-12 12H58a12 12 0 0 1-12-12Z"], ["light", "M44 46h72v9H44Z"]],
  utensil: [["main", "M58 18q13 0 13 20q0 14-8 18v48H53V56q-8-4-8-18q0-20 13-20ZM90 20h26v34h-8v50h-10V54h-8Z"]],
  knife: [["light", "M24 54h76v20q-50 2-76-20Z"], ["main", "M100 52h38a6 6 0 0 1 0 22h-38Z"]],
  board: [["main", "M42 34h76a8 8 0 0 1 8 8v54a8 8 0 0 1-8 8H42a8 8 0 0 1-8-8V42a8 8 0 0 1 8-8Z"], ["light", "M66 42h28v8H66ZM46 64h68v2H46ZM46 80h68v2H46Z"]],
  plate: [["main", dot(80, 64, 40)], ["light", dot(80, 64, 28)], ["main", dot(80, 64, 24)]],
  bowl: [["main", "M36 54h88q0 50-44 50t-44-50Z"], ["dark", "M34 48h92v8H34Z"]],
  mug: [["dark", "M96 54h8a15 15 0 0 1 0 34h-8v-9h8a6 6 0 0 0 0-16h-8Z"], ["main", "M50 42h48v50a12 12 0 0 1-12 12H62a12 12 0 0 1-12-12Z"], ["light", "M50 42h48v6H50Z"]],
  teapot: [["dark", "M48 82L28 56h12l18 14ZM110 62h8a15 15 0 0 1 0 32h-8v-8h7a7 7 0 0 0 0-16h-7ZM75 32h10v10H75Z"], ["main", "M80 48q36 0 36 32q0 24-36 24t-36-24q0-32 36-32Z"], ["light", "M62 42h36v8H62Z"]],
  planter: [["leaf", "M80 58q-32-6-26-40q28 8 26 40ZM80 58q32-6 26-40q-28 8-26 40Z"], ["main", "M52 64h56l-9 40H61Z"], ["dark", "M48 54h64v12H48Z"]],
  sack: [["main", "M52 32h56l5 72H47Z"], ["dark", "M50 22h60v11H50Z"], ["light", "M60 52h40v32H60Z"], ["leaf", "M80 78q-14-6-10-20q13 4 10 20ZM80 78q14-6 10-20q-13 4-10 20Z"]],
  can: [["dark", "M62 62a20 20 0 0 1 40 0h-7a13 13 0 0 0-26 0ZM60 92L32 52l9-4l19 26Z"], ["main", "M58 60h48v44H58Z"]],
  tool: [["dark", "M74 58h12v46H74Z"], ["main", "M64 16h32v26q-4 18-16 20q-12-2-16-20Z"]],
  glove: [["main", "M58 92V54q0-32 14-32h16q14 0 14 32v6l12-10q8 6 2 16l-14 18v8Z"], ["dark", "M56 90h48v14H56Z"]],
  chair: [["main", "M48 22h12v82H48Z"], ["dark", "M60 34h38v8H60ZM98 72h12v32H98Z"], ["main", "M48 60h64v12H48Z"]],
  table: [["dark", "M44 56h8v48h-8ZM108 56h8v48h-8Z"], ["main", "M32 46h96v12H32Z"]],
  parasol: [["dark", "M78 20h4v84h-4Z"], ["main", "M80 20q46 4 54 44H26q8-40 54-44Z"], ["light", "M80 20q14 8 18 44H62q4-36 18-44Z"]],
  tent: [["main", "M80 24L138 104H22Z"], ["dark", "M80 52l24 52H56Z"], ["light", "M80 52l6 52H56Z"]],
  torch: [["main", "M36 52q44-28 88 0v16q-44-26-88 0Z"], ["dark", "M62 46h36v36H62Z"], ["glow", dot(80, 64, 12)]],
  rucksack: [["dark", "M70 22h20v10H70Z"], ["main", "M50 56q0-30 30-30t30 30v38a10 10 0 0 1-10 10H60a10 10 0 0 1-10-10Z"], ["dark", "M60 70h40v26H60Z"], ["light", "M68 44h24v6H68ZM60 76h40v3H60Z"]],
  poles: [["main", "M60 36l6 0l4 68h-5ZM96 36h6l-7 68h-5Z"], ["dark", "M58 18h9v22h-9ZM95 18h9v22h-9Z"]],
  block: [["main", "M36 56h72v48H36Z"], ["light", "M36 56l16-20h72l-16 20Z"], ["dark", "M108 56l16-20v48l-16 20Z"]],
  bricks: [["dark", "M46 26h12v8H46ZM66 26h12v8H66Z"], ["light", "M40 34h44v34H40Z"], ["main", "M36 68h44v36H36Z"], ["dark", "M80 68h44v36H80Z"]],
  band: [["main", dot(80, 66, 38) + "M80 46a20 20 0 1 0 0 40a20 20 0 1 0 0-40Z"], ["light", "M74 26h12v22H74Z"]],
  dumbbell: [["dark", "M48 68h64v12H48Z"], ["main", "M30 48h18v52H30ZM112 48h18v52h-18Z"], ["light", "M22 60h8v28h-8ZM130 60h8v28h-8Z"]],
  shoe: [["main", "M32 52q16 12 28-4l30 28q30 2 38 20H32Z"], ["dark", "M30 94h100v10H30Z"], ["light", "M62 52l5-5l6 6-5 5ZM72 62l5-5l6 6-5 5ZM82 71l5-5l6 6-5 5Z"]],
  sock: [["main", "M60 30h30v46l28 14q8 10-2 14H80q-20-2-20-22Z"], ["dark", "M58 20h34v14H58Z"], ["light", "M100 82l20 10q4 8-4 12h-16Z"]],
  tee: [["main", "M60 26q20 14 40 0l34 18-12 24-14-6v42H52V62l-14 6-12-24Z"], ["dark", "M60 26q20 14 40 0l4 2q-24 18-48 0Z"]],
  jacket: [["main", "M60 24h40l30 16 6 56h-20l-4-30v38H48V66l-4 30H24l6-56Z"], ["dark", "M78 30h4v74h-4ZM60 24h40l-20 20Z"], ["light", "M54 78h16v3H54ZM90 78h16v3H90Z"]],
  trousers: [["main", "M54 22h52l8 82H90L80 52 70 104H46Z"], ["dark", "M54 22h52l1 8H53Z"]],
  hat: [["light", dot(80, 26, 9)], ["main", "M46 84q0-52 34-52t34 52Z"], ["dark", "M40 82h80v20H40Z"]],
  cards: [["dark", "M46 40l44-12 20 66-44 12Z"], ["light", "M62 30h48v70H62Z"], ["main", "M86 46l14 19-14 19-14-19Z"]],
  car: [["main", "M28 66h24l14-22h42l14 22h14v26H28Z"], ["light", "M70 50h16v16H60ZM91 50h14l9 16H91Z"], ["dark", dot(54, 92, 12) + dot(112, 92, 12)]],
  teddy: [["dark", dot(54, 40, 14) + dot(106, 40, 14)], ["main", dot(80, 68, 36)], ["light", dot(80, 80, 15)], ["ink", dot(67, 62, 4) + dot(93, 62, 4) + dot(80, 75, 5)]],
  book: [["main", "M50 22h58a6 6 0 0 1 6 6v70a6 6 0 0 1-6 6H50Z"], ["dark", "M44 22h12v82H44Z"], ["light", "M68 40h34v16H68Z"]],
  pen: [["main", "M50 84L100 24l14 11L64 96Z"], ["dark", "M50 84l14 12-22 8ZM100 24l5-6 14 11-5 6Z"]],
  keyboard: [["main", "M24 52h112v48H24Z"], ["light", "M32 60h12v9H32ZM48 60h12v9H48ZM64 60h12v9H64ZM80 60h12v9H80ZM96 60h12v9H96ZM112 60h16v9h-16ZM32 73h18v9H32ZM54 73h12v9H54ZM70 73h12v9H70ZM86 73h12v9H86ZM102 73h26v9h-26ZM50 86h58v8H50Z"]],
  mouse: [["main", "M80 28q28 0 28 32v14q0 30-28 30t-28-30V60q0-32 28-32Z"], ["dark", "M77 40h6v20h-6ZM52 66h56v3H52Z"]],
  petbed: [["main", "M26 78q0-20 54-20t54 20v12q0 14-54 14T26 90Z"], ["light", "M80 64q40 0 40 14t-40 11t-40-11q0-14 40-14Z"]],
  bone: [["main", "M54 58h52v18H54Z" + dot(50, 56, 13) + dot(50, 78, 13) + dot(110, 56, 13) + dot(110, 78, 13)]],
  post: [["main", "M68 34h24v64H68Z"], ["light", "M68 48h24v3H68ZM68 60h24v3H68ZM68 72h24v3H68ZM68 84h24v3H68Z"], ["dark", "M50 24h60v11H50ZM40 96h80v8H40Z"]],
  ball: [["main", dot(80, 70, 34)], ["light", "M48 60q32 14 64 0v8q-32 14-64 0Z"]],
};
/* The first row of which a word is in the category's last level, else in the title, decides. */
const KINDS = [["floor lamp", "floorlamp"], ["lamp shade", "shade"], ["table lamp", "lamp"], ["lantern", "lantern"], ["light bulb", "bulb"],
  ["plug", "plug"], ["candle", "candle"], ["cushion|pillow", "cushion"], ["throw|scarves|rain cover", "fabric"], ["rug|yoga mat|sleeping|roller", "roll"],
  ["vase", "vase"], ["frame", "frame"], ["clock", "clock"], ["frying", "pan"], ["casserole|cook set|stove|lids", "pot"], ["spatula|brush", "utensil"],
  ["knife|knives", "knife"], ["chopping|trivet|desk mat", "board"], ["plate", "plate"], ["bowl", "bowl"], ["mug", "mug"], ["teapot|coffee maker|grinder", "teapot"],
  ["planter", "planter"], ["seed|compost|treat", "sack"], ["watering", "can"], ["hand tool", "tool"], ["glove", "glove"], ["chair", "chair"],
  ["table|monitor", "table"], ["parasol", "parasol"], ["tent", "tent"], ["torch", "torch"], ["rucksack|pen case", "rucksack"], ["poles", "poles"],
  ["block", "bricks"], ["strap|band|belt|collar|tags|holder", "band"], ["dumbbell", "dumbbell"], ["shoe", "shoe"], ["sock", "sock"],
  ["t-shirt|jumper", "tee"], ["shirt|jacket", "jacket"], ["trouser", "trousers"], ["hats", "hat"], ["card game|dice", "cards"], ["train|vehicle", "car"],
  ["soft toy|doll", "teddy"], ["notebook|book", "book"], ["pens", "pen"], ["keyboard", "keyboard"], ["mice", "mouse"], ["beds", "petbed"],
  ["scratch", "post"], ["moistur|mask|cream|soap", "jar"], ["diffus|flask|fuel|cleanser|toner|serum|shampoo|condition|ink", "bottle"]];
const COLOURS = { amber: "#d9962b", anthracite: "#45494e", black: "#33363a", blue: "#3f73b5", blush: "#e3b1ab", burgundy: "#7c2b3d",
  charcoal: "#4c5157", cobalt: "#2f55a8", coral: "#ee7a65", cream: "#ede2c8", daylight: "#f6efcf", ecru: "#d8ccae", "ember orange": "#e06a2c",
  emerald: "#2c8a62", "forest green": "#35603f", graphite: "#55595f", grey: "#98a0a6", heather: "#a294b0", ivory: "#f1ead8", kraft: "#bd9468",
  lime: "#a8c83c", moss: "#77854a", mustard: "#d6a52c", natural: "#cfae80", navy: "#2c3a63", ochre: "#c98a32", olive: "#7f7d3c", pastel: "#b9cbe6",
  pine: "#2f5f52", primary: "#d8483f", rainbow: "#8e63c0", red: "#c63d38", rust: "#ab5230", sage: "#9fb193", sand: "#d8c29a", sepia: "#7d5f45",
  sky: "#86b9dc", slate: "#64717d", "soft white": "#f5efe2", teal: "#2e8687", terracotta: "#c46a4a", tweed: "#8d7b65", violet: "#7d58b0",
  "warm white": "#f6ecd4", white: "#f8f8f5" };
const PETS = { "dogs > toys": "bone", "cats > toys": "ball" };

function hash(text) {
  let h = 2166136261;
  for (const c of text) h = Math.imul(h ^ c.codePointAt(0), 16777619) >>> 0;
  return h;
}
function mix(hex, other, share) {
  const part = (text, i) => parseInt(text.slice(i, i + 2), 16);
  return "#" + [1, 3, 5].map((i) => Math.round(part(hex, i) * (1 - share) + part(other, i) * share).toString(16).padStart(2, "0")).join("");
}
function shapeOf(item) {
  const levels = (item.category || "").toLowerCase().split(" > ");
  const kind = (text) => text && KINDS.find(([words]) => new RegExp(`\\b(${words})`).test(text));
  return SHAPES[PETS[levels.slice(-2).join(" > ")] || (kind(levels.at(-1)) || kind((item.title || "").toLowerCase()) || [0, "block"])[1]];
}
const HUES = ["#c9863f", "#7f9c56", "#5a86a8", "#a8688c", "#8a77b8", "#4f9a94"];
function picture(item) {
  const add = (parent, name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return parent.appendChild(element);
  };
  const facts = item.attributes || {};
  const main = COLOURS[String(facts.colour || facts.color || "").toLowerCase()] || HUES[hash(String(facts.material || item.id)) % HUES.length];
  const tones = { main, dark: mix(main, "#201a18", .35), light: mix(main, "#ffffff", .5), glow: "#ffd766", leaf: "#5f9150", ink: "#2b2523" };
  const hue = hash((item.category || "").split(" > ")[0]) % 360;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 160 120");
  svg.setAttribute("aria-hidden", "true");
  add(svg, "rect", { width: 160, height: 120, fill: `hsl(${hue} 38% 90%)` });
  add(svg, "rect", { y: 98, width: 160, height: 22, fill: `hsl(${hue} 26% 81%)` });
  for (const [tone, d] of shapeOf(item)) add(svg, "path", { d, fill: tones[tone], "fill-rule": "evenodd", stroke: "#0003", "stroke-width": 1 });
  return svg;
}

/* ---- shelves ---- */

function price(item) {
  if (item.price === undefined) return "";
  try { return new Intl.NumberFormat(undefined, { style: "currency", currency: item.currency }).format(item.price); }
  catch { return [item.price, item.currency].filter(Boolean).join(" "); }
}
function stock(item) {
  const span = make("span");
  const [className, text] = item.stock === undefined ? ["", ""] : item.stock <= 0 ? ["out", "Sold out"]
    : item.stock <= 5 ? ["low", `Only ${item.stock} left`] : ["in", "In stock"];
  span.className = className;
  span.textContent = text;
  return span;
}
const titleOf = (id) => items.get(id)?.title || id;

function card(item) {
  const entry = make("li"), link = make("a", "card"), text = make("span", "text"), line = make("span", "line");
  link.href = "#/" + encodeURIComponent(item.id);
  line.append(make("span", "price", price(item)), stock(item));
  text.append(make("span", "brand", item.brand || ""), make("span", "title", item.title || item.id), line);
  const because = (item.explanation?.because || []).filter((id) => id !== shown?.id || $("product").hidden);
  if (because.length) text.append(make("span", "why", "because of " + titleOf(because[0])));
  link.append(picture(item), text);
  link.addEventListener("click", () => { opener = item.id; });
  entry.append(link);
  return entry;
}

const asked = {}; // by shelf: how often; an answer that a later question overtook is dropped
async function fill(shelf, request) {
  const turn = asked[shelf] = (asked[shelf] || 0) + 1;
  const answer = await call("POST", "/v1/recommendations", { explain: true, limit: SHELF, ...request });
  if (asked[shelf] !== turn) return null;
  for (const item of answer.items) items.set(item.id, { ...item, requestId: answer.request_id });
  $(shelf).replaceChildren(...answer.items.map(card));
  return answer;
}

const idsOn = (shelf) => [...$(shelf).querySelectorAll("a")].map((link) => decodeURIComponent(link.hash.slice(2)));

async function refresh() {
  const before = new Set([...$("for-you").querySelectorAll("a")].map((link) => link.hash));
  const request = remembers ? { user_id: visitor } : { items: [...new Set(trail.map((event) => event.item_id))].slice(0, 20) };
  const exclude = $("product").hidden ? [] : idsOn("related"); // no product twice under one another
  const answer = await fill("for-you", { scenario: "for_you", exclude_seen: "viewed", exclude, ...request });
  if (!answer) return;
  const links = [...$("for-you").querySelectorAll("a")];
  const fresh = before.size ? links.filter((link) => !before.has(link.hash)) : [];
  for (const link of fresh) link.parentElement.classList.add("fresh");
  const personal = answer.items.some((item) => item.sources.includes("vector") || item.sources.includes("neighbors"));
  const follows = trail.length ? `Now follows “${titleOf(trail[0].item_id)}”` : "From what you looked at, newest first";
  $("for-you-note").textContent = personal ? follows + (fresh.length ? `: ${fresh.length} of ${links.length} new on this shelf.` : ".")
    : "Nothing is known of you yet, so these are what everybody likes. Open one and this shelf follows.";
  const ms = answer.timing.split(",").reduce((sum, part) => sum + (Number(part.split("dur=")[1]) || 0), 0);
  facts($("answer"), { "Request id": answer.request_id, Release: answer.release, "Time in the service": ms ? ms.toFixed(2) + " ms" : undefined,
    "Done without": answer.degraded.join(", ") || undefined });
}
function facts(list, values) {
  list.replaceChildren();
  for (const [name, value] of Object.entries(values)) if (value !== undefined && value !== "") list.append(make("dt", "", name), make("dd", "", String(value)));
}

async function history() {
  const stored = await withToken(() => call("GET", `/v1/users/${encodeURIComponent(visitor)}/history`));
  const events = (stored ? stored.events : trail).slice(0, HISTORY_SHOWN);
  await Promise.all(events.map((event) => lookUp(event.item_id)));
  const verbs = { view: "viewed", click: "clicked", cart: "basket", purchase: "bought" };
  $("history").replaceChildren(...events.map((event) => {
    const entry = make("li");
    entry.append(make("span", "", verbs[event.type] || event.type), titleOf(event.item_id));
    return entry;
  }));
  if (!events.length) $("history").append(make("li", "none", "Nothing yet."));
}

async function record(type) {
  trail.unshift({ item_id: shown.id, type });
  await withToken(() => call("POST", "/v1/events", {
    user_id: visitor, item_id: shown.id, type, request_id: shown.requestId,
    event_id: crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2),
  }));
  await history();
  await refresh();
}

/* ---- the product, opened by the address: #/ID ---- */

async function open(id) {
  shown = await lookUp(id);
  if (!shown.title) throw new Error("the catalogue has no item " + id);
  const item = shown, more = item.attributes || {};
  $("product-title").textContent = item.title;
  $("product-path").textContent = (item.category || "").replaceAll(" > ", " › ");
  $("product-brand").textContent = item.brand ? "by " + item.brand : "";
  $("product-price").textContent = price(item);
  $("product-stock").replaceChildren(stock(item));
  $("product-picture").replaceChildren(picture(item));
  $("cart").disabled = $("buy").disabled = item.stock <= 0;
  $("cart").textContent = "Add to basket";
  facts($("product-facts"), Object.fromEntries(Object.entries(more).map(([name, value]) => [name[0].toUpperCase() + name.slice(1).replaceAll("_", " "), value])));
  $("product").hidden = false;
  $("product-title").focus({ preventScroll: true });
  scrollTo(0, 0);
  await fill("related", { scenario: "related", items: [id], limit: SHELF / 2, user_id: remembers ? visitor : undefined });
  if (shown === item) await record("view");
}
function close() {
  if ($("product").hidden) return;
  $("product").hidden = true;
  const back = opener && document.querySelector(`main a[href="#/${CSS.escape(encodeURIComponent(opener))}"]`);
  (back || $("for-you-title")).focus();
}
function route() {
  if (location.hash.startsWith("#/")) attempt(() => open(decodeURIComponent(location.hash.slice(2))));
  else if (location.hash.length < 2) close();
}
function home() { window.history.pushState(null, "", location.pathname); route(); }

addEventListener("hashchange", route);
$("cart").addEventListener("click", () => attempt(async () => { await record("cart"); $("cart").textContent = "In your basket"; }));
$("buy").addEventListener("click", () => attempt(async () => { await record("purchase"); home(); }));
$("close").addEventListener("click", home);
$("new-visitor").addEventListener("click", () => attempt(async () => {
  visitor = newVisitor();
  trail = [];
  home();
  await start();
}));
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  $("token").value = "";
  remembers = true;
  $("notice").hidden = true;
  attempt(start);
});
async function start() {
  $("visitor").textContent = visitor;
  $("for-you").replaceChildren();
  await history();
  await refresh();
  await fill("popular", { scenario: "popular", exclude: idsOn("for-you") });
}
attempt(async () => { await start(); route(); });
