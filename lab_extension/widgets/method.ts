/** The method panel: the forecast above, the form below it. */

import { forecastBar, type Forecast } from '../ui/bar.ts';
import { h } from '../ui/dom.ts';
import { form } from '../ui/form.ts';
import { definePanel, threeParts } from '../ui/frame.ts';
import { follow, type PanelState, type ThreePartError } from '../ui/model.ts';

interface MethodState extends PanelState {
  forecast: Forecast;
  plan_error: ThreePartError;
}

export default definePanel<MethodState>('method', ({ model, body, cleanup }) => {
  const place = h('div', { class: 'tb-forecast-place' });
  let open = false; // whether the explanation was unfolded, kept when the bar is drawn anew
  const draw = (): void => {
    const error = model.get('plan_error');
    open = place.querySelector('details')?.open ?? open;
    place.replaceChildren(error.what ? threeParts(error) : forecastBar(model.get('forecast')));
    const details = place.querySelector('details');
    if (details) {
      details.open = open;
    }
  };
  follow(model, ['forecast', 'plan_error'], draw, cleanup);
  body.append(place, form(model, cleanup));
});
