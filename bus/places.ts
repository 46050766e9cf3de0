/**
 * Things under way, each at a numbered place that is free again when it is done.
 *
 * A Map or a Set that is filled and emptied all the time leaves a trail of outgrown tables, each holding the next, which only a full
 * collection removes: at tens of thousands of entries a second that costs more than the entries themselves.
 */
export class Places<T extends object> implements Iterable<T> {
  readonly #taken: (T | undefined)[] = [];
  readonly #free: number[] = [];

  get size(): number {
    return this.#taken.length - this.#free.length;
  }

  /** Gives it a place, and says which. */
  add(one: T): number {
    const place = this.#free.pop() ?? this.#taken.length;
    this.#taken[place] = one;
    return place;
  }

  /** Who is at a place; undefined when nobody is. */
  at(place: number): T | undefined {
    return this.#taken[place];
  }

  /** Frees the place, if it is still this one's. */
  remove(place: number, one: T): void {
    if (this.#taken[place] !== one) return;
    this.#taken[place] = undefined;
    this.#free.push(place);
  }

  /** Whoever is there at the time; places may be taken and freed meanwhile. */
  *[Symbol.iterator](): Iterator<T> {
    for (const one of this.#taken.slice()) if (one !== undefined) yield one;
  }
}
