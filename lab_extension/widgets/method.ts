/** The method panel: starting points, the forecast that stays in sight, the ladder, and the form. */

import { liveForecast, type Forecast } from '../ui/bar.ts';
import { h, toggle } from '../ui/dom.ts';
import { form } from '../ui/form.ts';
import { definePanel, threeParts } from '../ui/frame.ts';
import { BUDGET, ladderView, type LadderState } from '../ui/method/ladder.ts';
import { layerView, type LayerState } from '../ui/method/layer.ts';
import { presetsView, type PresetState } from '../ui/method/presets.ts';
import { roundingView, type RoundingState } from '../ui/method/rounding.ts';
import { scheduleView, type ScheduleState } from '../ui/method/schedule.ts';
import { follow, type AnyModel, type Cleanup, type ThreePartError } from '../ui/model.ts';
import { keepInSight } from '../ui/stays.ts';

interface MethodState extends LadderState, LayerState, PresetState, RoundingState, ScheduleState {
  forecast: Forecast;
  plan_error: ThreePartError;
}

export default definePanel<MethodState>('method', ({ model, body, cleanup }) => {
  const live = liveForecast();
  const failed = h('div', { class: 'tb-forecast-place' });
  live.head.classList.add('tb-stays');
  const rest = h('div', { class: 'tb-forecast tb-forecast-below' }, live.rest, ladderView(narrowed(model), cleanup));
  const draw = (): void => {
    const error = model.get('plan_error');
    const wrong = Boolean(error.what);
    failed.replaceChildren(...(wrong ? [threeParts(error)] : []));
    toggle(failed, wrong);
    toggle(live.head, !wrong);
    toggle(rest, !wrong && Boolean(model.get('forecast').parts?.length));
    live.draw(model.get('forecast'));
  };
  follow(model, ['forecast', 'plan_error'], draw, cleanup);
  const fields = form(model, cleanup, {
    without: [BUDGET],
    below: {
      Quantization: roundingView(narrowed(model), cleanup),
      Training: h('div', { class: 'tb-training-below' }, batchLine(model, cleanup), scheduleView(narrowed(model), cleanup))
    },
    instead: { 'lora.target_modules': layerView(narrowed(model), cleanup) }
  });
  body.append(presetsView(narrowed(model), cleanup), failed, live.head, rest, fields);
  keepInSight(live.head, cleanup);
});

/** The same model for a view that knows some of its traits. */
function narrowed<T extends object>(model: AnyModel<MethodState>): AnyModel<T> {
  return model as unknown as AnyModel<T>;
}

/** What batch and accumulation come to. */
function batchLine(model: AnyModel<MethodState>, cleanup: Cleanup): HTMLElement {
  const node = h('p', { class: 'tb-effective', role: 'status' });
  const draw = (): void => {
    const values = model.get('values');
    const rows = Number(values['training.batch_size']);
    const times = Number(values['training.gradient_accumulation_steps']);
    const planned = model.get('forecast').strategy?.[0];
    const split = planned && planned !== `batch ${rows} × ${times}` ? `; run as ${planned.replace('batch ', '')} to fit, which learns the same` : '';
    node.replaceChildren(h('strong', {}, `${rows * times} rows`), ` per update: ${rows} × ${times}${split}.`);
  };
  follow(model, ['values', 'forecast'], draw, cleanup);
  return node;
}
