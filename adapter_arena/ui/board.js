// The leaderboard's table in the browser: sorting, search, and links to adapters. gr.HTML runs this with `element`,
// `trigger` and `watch`. Sort order and search are kept in the page's address, from which they are restored.
const fromAddress = (name) => new URLSearchParams(window.location.search).get(name) ?? '';
const toAddress = (name, value) => {
  const url = new URL(window.location);
  if (value) url.searchParams.set(name, value);
  else url.searchParams.delete(name);
  history.replaceState(history.state, '', url);
};

// `accuracy` sorts by that column, the least value first; `-accuracy` the other way round.
let sort = fromAddress('board_sort');
const sortRows = () => {
  const ascending = !sort.startsWith('-');
  const header = element.querySelector(`th[data-key="${CSS.escape(ascending ? sort : sort.slice(1))}"]`);
  if (!header) return;
  for (const other of header.parentElement.children) other.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
  const body = header.closest('table').tBodies[0];
  const valueOf = (row) => row.cells[header.cellIndex].dataset.value ?? '';
  const compare = (first, second) => {
    const [a, b] = [valueOf(first), valueOf(second)];
    if (a === '' || b === '') return (a === '') - (b === '');
    const difference = Number(a) - Number(b);
    const result = Number.isNaN(difference) ? a.localeCompare(b) : difference;
    return ascending ? result : -result;
  };
  body.append(...[...body.rows].sort(compare));
};

let search = fromAddress('board_search');
const searchRows = () => {
  const words = search.toLowerCase().split(/\s+/);
  const rows = [...element.querySelectorAll('tbody tr')];
  for (const row of rows) row.hidden = !words.every((word) => row.dataset.search.includes(word));
  const shown = rows.filter((row) => !row.hidden).length;
  const count = element.querySelector('.count');
  if (count) count.textContent = shown === rows.length ? '' : `${shown} of ${rows.length} rows match the search.`;
};
const searchBox = (event) => event.target.closest?.('#board-search') && event.target;
document.addEventListener('input', (event) => {
  if (!searchBox(event)) return;
  search = searchBox(event).value;
  searchRows();
});
document.addEventListener('change', (event) => {
  if (searchBox(event)) toAddress('board_search', search);
});

element.addEventListener('click', (event) => {
  const header = event.target.closest('th button')?.closest('th');
  if (!header) return;
  const order = header.getAttribute('aria-sort');
  const ascending = order === 'descending' || (order === null && 'ascending' in header.dataset);
  sort = (ascending ? '' : '-') + header.dataset.key;
  toAddress('board_sort', sort);
  sortRows();
});

// A row, and any link to #open=NAME in the charts, opens that adapter.
const open = (event) => {
  const row = event.target.closest('tr[data-name]');
  if (row) trigger('select', {name: row.dataset.name});
};
element.addEventListener('click', open);
element.addEventListener('keydown', (event) => { if (event.key === 'Enter') open(event); });
const openLinked = () => {
  const name = new URLSearchParams(window.location.hash.slice(1)).get('open');
  if (!name || !element.isConnected) return;
  history.replaceState(history.state, '', window.location.pathname + window.location.search);
  trigger('select', {name});
};
window.addEventListener('hashchange', openLinked);

const refresh = () => { sortRows(); searchRows(); };
watch('value', refresh);
refresh();
