/** The data panel: the source, what is wrong with it, its rows, and one of them in all its stages. */

import { h, toggle } from '../ui/dom.ts';
import { source } from '../ui/data/chooser.ts';
import { findings } from '../ui/data/findings.ts';
import { lengthView } from '../ui/data/lengths.ts';
import { rowList } from '../ui/data/list.ts';
import { mappingView } from '../ui/data/mapping.ts';
import { rowView } from '../ui/data/stages.ts';
import type { DataState, Model } from '../ui/data/state.ts';
import { form } from '../ui/form.ts';
import { count } from '../ui/format.ts';
import { definePanel } from '../ui/frame.ts';
import { follow, type Cleanup } from '../ui/model.ts';

export default definePanel<DataState>('data', ({ model, body, cleanup }) => {
  body.append(
    source(model, cleanup),
    mappingView(model, cleanup),
    form(model, cleanup, { groups: false, fold: 'Settings of the data' }),
    statistics(model, cleanup),
    lengthView(model, cleanup),
    findings(model, cleanup),
    explorer(model, cleanup)
  );
  if (!model.get('rows') && !model.get('error').what) {
    model.send({ type: 'seen' });
  }
});

function statistics(model: Model, cleanup: Cleanup): HTMLElement {
  const list = h('dl', { class: 'tb-stats' });
  const draw = (): void => {
    const all = model.get('statistics');
    list.replaceChildren();
    toggle(list, all.rows !== undefined);
    const add = (name: string, value: string): void => list.append(h('div', {}, h('dt', {}, name), h('dd', {}, value)));
    if (all.rows !== undefined) {
      add('Rows', count(all.rows));
      add('Tokens', count(all.tokens ?? 0));
      add('Trained', `${(100 * (all.trained_share ?? 0)).toFixed(0)} %`);
      add('Mean length', count(all.mean_length ?? 0));
      add('Longest', count(all.longest ?? 0));
      add('Cut off', count(all.truncated ?? 0));
    }
  };
  follow(model, ['statistics'], draw, cleanup);
  return list;
}

function explorer(model: Model, cleanup: Cleanup): HTMLElement {
  const node = h('div', { class: 'tb-explorer' }, rowList(model, cleanup), rowView(model, cleanup));
  follow(model, ['rows'], () => toggle(node, model.get('rows') > 0), cleanup);
  return node;
}
