/** What Enter does in a box for several lines of text. */

/**
 * Enter does `action` and Shift+Enter begins a new line; without an action, both begin a new line.
 *
 * Enter that ends a composed word does neither. The new line is put in here, since JupyterLab
 * cancels the page's own (`insertLineBreak`) inside a cell.
 */
export function onEnter(input: HTMLTextAreaElement, action?: () => void): void {
  let composed = -Infinity;
  // Safari ends the composition before it sends the Enter that ended it
  input.addEventListener('compositionend', event => (composed = event.timeStamp));
  input.addEventListener('keydown', event => {
    const composing = event.isComposing || event.keyCode === 229 || event.timeStamp - composed < 50;
    if (event.key !== 'Enter' || composing || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    event.preventDefault();
    if (action && !event.shiftKey) {
      action();
    } else {
      input.setRangeText('\n', input.selectionStart, input.selectionEnd, 'end');
      input.dispatchEvent(new Event('input', { bubbles: true }));
    }
  });
}
