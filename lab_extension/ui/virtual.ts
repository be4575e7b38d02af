/** The arithmetic of a list that is drawn only where it is seen. Pure; knows no element. */

/** Pixels; browsers place nothing reliably beyond some sixteen million. */
export const MOST_HEIGHT = 6_000_000;

/** Maps a scrollbar to the rows of a list, however many they are. */
export class Scale {
  readonly total: number;
  readonly row: number;
  readonly view: number;

  /**
   * @param total - rows in the list
   * @param row - height of one, in pixels
   * @param view - height of what is seen of the list, in pixels
   */
  constructor(total: number, row: number, view: number) {
    this.total = total;
    this.row = row;
    this.view = view;
  }

  /** Height of what is scrolled: that of all rows, or as much as a browser bears. */
  get height(): number {
    return Math.min(MOST_HEIGHT, this.total * this.row);
  }

  /** How many rows may be seen at once, those cut at the edges included. */
  get seen(): number {
    return Math.min(this.total, Math.ceil(this.view / this.row) + 1);
  }

  /** The row at the upper edge, with the fraction of it that is scrolled away. */
  first(scrollTop: number): number {
    const way = this.height - this.view;
    const top = Math.min(Math.max(0, scrollTop), Math.max(0, way));
    return way > 0 ? (top / way) * this.#last : 0;
  }

  /** The scroll position that brings a row into view with the least movement. */
  reveal(place: number, scrollTop: number): number {
    const whole = this.view / this.row;
    const first = this.first(scrollTop);
    const wanted = place < first ? place : place + 1 > first + whole ? place + 1 - whole : first;
    return this.#last > 0 ? (Math.min(this.#last, Math.max(0, wanted)) / this.#last) * (this.height - this.view) : 0;
  }

  /** What `first` is at the lower end. */
  get #last(): number {
    return Math.max(0, this.total - this.view / this.row);
  }
}
