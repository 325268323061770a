// Everything here is comfort: without it the pages show the same.
// Tooltips: the text of whatever the pointer is over, at once, instead of the browser's own after a second.
// Forms: sent once, for the answer to a second click would stand in the place of the first, which may have had a secret.
// Refresh: while the box is ticked and the page is looked at, its figures are fetched anew.

const REFRESH_MS = 15_000;
const STORED = "gateway-refresh";

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);

document.addEventListener("pointermove", (event) => {
  const over = event.target.closest?.("[data-tip]");
  tip.hidden = !over;
  if (!over) return;
  over.querySelector("title")?.remove();
  tip.textContent = over.dataset.tip;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, event.clientX - width / 2), window.innerWidth - width - 8);
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(8, event.clientY - height - 14)}px`;
});

document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});

window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

const content = document.getElementById("content");

function addRefreshBox() {
  const template = document.getElementById("refresh");
  if (!template) return;
  const label = template.content.firstElementChild.cloneNode(true);
  const box = label.querySelector("input");
  box.checked = localStorage.getItem(STORED) === "on";
  box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
  document.getElementById("fresh").append(label);
}

async function refresh() {
  const box = content.querySelector(".refresh input");
  const focused = document.activeElement;
  const inUse = content.contains(focused) && focused !== content && focused !== box;
  if (!box?.checked || document.hidden || inUse) return;
  const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
  if (answer?.type === "opaqueredirect") location.reload(); // the session has ended: the server shows the way in
  if (!answer?.ok) return;
  const fetched = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
  for (const open of content.querySelectorAll("details[open]")) {
    fetched.querySelector(`#${open.id}`)?.setAttribute("open", "");
  }
  content.replaceChildren(...fetched.childNodes);
  addRefreshBox();
  if (focused === box) content.querySelector(".refresh input").focus();
}

addRefreshBox();
setInterval(refresh, REFRESH_MS);
