/**
 * Sends the forms marked with `data-quiet` without leaving the page. What they change comes back through the live
 * lists, to this tab as to all others. Without this file the same forms work by a reload.
 */

const loud = new WeakSet();

document.addEventListener("submit", async (event) => {
  const { target: form, submitter } = event;
  if (!(form instanceof HTMLFormElement) || !form.matches("[data-quiet]") || loud.has(form)) return;
  event.preventDefault();
  nameTheEntry(submitter);
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  const sent = await send(form, submitter).catch(() => false);
  form.ariaBusy = null;
  if (sent) settle(form, submitter);
  else insist(form, submitter);
});

/** The button of an entry that arrived live was copied from a template: its value is its item's key. */
function nameTheEntry(button) {
  const key = button?.closest("[data-key]")?.dataset.key;
  if (key && button.name === "entry") button.value = key;
}

/** Every one of these forms answers with a redirect if all went well, which fetch need not follow. */
async function send(form, submitter) {
  const response = await fetch(form.action, {
    method: "POST",
    body: new FormData(form, submitter),
    redirect: "manual",
  });
  return response.type === "opaqueredirect";
}

function settle(form, submitter) {
  const note = form.querySelector("output");
  if (!note) return;
  form.reset();
  note.value = submitter?.dataset.done ?? "";
  form.querySelector("input:not([type=hidden]), textarea")?.focus();
}

/** Send the form the ordinary way: the page that answers says what is wrong. */
function insist(form, submitter) {
  loud.add(form);
  form.requestSubmit(submitter);
  loud.delete(form);
}

document.addEventListener("input", ({ target }) => {
  const note = target.form?.matches("[data-quiet]") && target.form.querySelector("output");
  if (note) note.value = "";
});
