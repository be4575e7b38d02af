/** The train panel: buttons, progress, the live curves, what it answers, what happened. */

import { definePanel } from '../ui/frame.ts';
import { compare } from './train/compare.ts';
import { buttons, progress } from './train/controls.ts';
import { curves } from './train/curves.ts';
import { events, notices } from './train/events.ts';
import { numbers } from './train/numbers.ts';
import { samples } from './train/samples.ts';
import type { TrainState } from './train/state.ts';

export default definePanel<TrainState>('train', ({ model, body, cleanup }) => {
  const parts = [buttons, progress, notices, numbers, curves, samples, compare, events];
  body.append(...parts.map(part => part(model, cleanup)));
});
