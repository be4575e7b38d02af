/** Keep the head of a panel in sight while the panel scrolls by.
 *
 * `position: sticky` would do, but JupyterLab's outputs are boxes of their own that could scroll, and
 * a sticky element keeps to the nearest of those.
 */

import type { Cleanup } from './model.ts';

/** Move `head` down by as much as is needed to stay at the top of what scrolls, inside its parent. */
export function keepInSight(head: HTMLElement, cleanup: Cleanup): void {
  const start = document.createElement('div');
  start.setAttribute('aria-hidden', 'true');
  start.className = 'tb-stays-start';
  head.before(start);
  let waiting = 0;
  const move = (): void => {
    waiting = 0;
    const parent = head.parentElement;
    if (!parent || !head.offsetHeight) {
      return;
    }
    const room = parent.getBoundingClientRect().bottom - start.getBoundingClientRect().top - head.offsetHeight;
    const wanted = topOf(head) - start.getBoundingClientRect().top;
    const by = Math.round(Math.max(0, Math.min(wanted, room)));
    head.style.transform = by ? `translateY(${by}px)` : '';
    head.classList.toggle('tb-stuck', by > 0);
  };
  const later = (): void => {
    waiting ||= requestAnimationFrame(move);
  };
  document.addEventListener('scroll', later, { capture: true, passive: true });
  window.addEventListener('resize', later);
  cleanup.add(() => {
    document.removeEventListener('scroll', later, { capture: true });
    window.removeEventListener('resize', later);
    cancelAnimationFrame(waiting);
    start.remove();
  });
}

/** The upper edge of the nearest ancestor that has something to scroll, or of the window. */
function topOf(element: HTMLElement): number {
  for (let outer = element.parentElement; outer; outer = outer.parentElement) {
    const overflow = getComputedStyle(outer).overflowY;
    if ((overflow === 'auto' || overflow === 'scroll') && outer.scrollHeight > outer.clientHeight + 1) {
      return outer.getBoundingClientRect().top;
    }
  }
  return 0;
}
