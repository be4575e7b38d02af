/** The forecast alone, to look at. */

import { forecastBar, type Forecast } from '../ui/bar.ts';
import { definePanel, threeParts } from '../ui/frame.ts';
import { follow, type PanelState, type ThreePartError } from '../ui/model.ts';

interface ForecastState extends PanelState {
  forecast: Forecast;
  plan_error: ThreePartError;
}

export default definePanel<ForecastState>('forecast', ({ model, body, cleanup }) => {
  const draw = (): void => {
    const error = model.get('plan_error');
    body.replaceChildren(error.what ? threeParts(error) : forecastBar(model.get('forecast')));
  };
  follow(model, ['forecast', 'plan_error'], draw, cleanup);
});
