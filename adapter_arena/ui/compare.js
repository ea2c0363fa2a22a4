// The table of answers in Compare. Gradio runs this when the table appears, with `element`, `trigger` and `watch`.
// It follows fragments.SORT, which sorts the table.

// A text is sent when its visitor pauses, so that requests are few.
const PAUSE = 400;
// Holding an arrow key passes rows whose words are not needed.
const ROW_PAUSE = 150;

let typing;
const send = (pause) => {
  const isDuel = document.querySelector('#mode input:checked')?.value === 'duel';
  clearTimeout(typing);
  typing = setTimeout(() => (isDuel ? trigger('duelled') : trigger('input')), pause);
};
document.addEventListener('input', (event) => {
  if (event.target.closest('#text, #text-pair')) send(event.isExample ? 0 : PAUSE);
});
document.addEventListener('change', (event) => {
  if (event.target.closest('#mode')) send(0);
});

const rows = () => [...element.querySelectorAll('tr[data-name]')];

// Only the chosen row is a stop of the Tab key; the arrow keys lead to the others.
const mark = (name) => {
  for (const row of rows()) {
    const isChosen = row.dataset.name === name;
    row.tabIndex = isChosen ? 0 : -1;
    if (isChosen) row.setAttribute('aria-current', 'true');
    else row.removeAttribute('aria-current');
  }
};

let choosing;
const choose = (row, pause) => {
  mark(row.dataset.name);
  clearTimeout(choosing);
  choosing = setTimeout(() => trigger('select', {name: row.dataset.name}), pause);
};

element.addEventListener('click', (event) => {
  const load = event.target.closest('[data-load]');
  if (load) {
    load.disabled = true;
    load.textContent = 'Loading';
    trigger('load_adapter', {name: load.dataset.load});
    return;
  }
  const row = event.target.closest('tr[data-name]');
  if (row) choose(row, 0);
});

element.addEventListener('keydown', (event) => {
  const row = event.target.closest('tr[data-name]');
  if (!row || event.target !== row) return;
  const all = rows();
  const last = all.length - 1;
  const position = all.indexOf(row);
  const next = {ArrowDown: Math.min(position + 1, last), ArrowUp: Math.max(position - 1, 0), Home: 0, End: last}[event.key];
  if (next !== undefined) {
    event.preventDefault();
    all[next].focus();
    choose(all[next], ROW_PAUSE);
  } else if (event.key === 'Enter' || event.key === ' ') {
    event.preventDefault();
    choose(row, 0);
  }
});

// A new table is sorted by its last column, the score, until the visitor sorts by another one; that order is kept.
let sorted = null;
element.addEventListener('click', (event) => {
  const header = event.target.closest('th');
  if (header?.hasAttribute('aria-sort')) {
    sorted = {column: [...header.parentElement.children].indexOf(header), order: header.getAttribute('aria-sort')};
  }
});
const sortAgain = () => {
  const headers = [...element.querySelectorAll('th')];
  headers.at(-1)?.setAttribute('aria-sort', 'descending');
  if (sorted === null || !headers[sorted.column]) return;
  const header = headers[sorted.column];
  const {order} = sorted;
  for (let click = 0; click < 2 && header.getAttribute('aria-sort') !== order; click++) {
    header.querySelector('button').click();
  }
};

const refresh = () => {
  mark(element.querySelector('.answers')?.dataset.chosen);
  sortAgain();
};
watch('value', refresh);
refresh();
