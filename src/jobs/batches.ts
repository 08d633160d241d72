/** What one statement takes. */

/** One statement takes at most this many jobs, and this many characters of input. */
const batchMax = 1_000;
const batchChars = 8_000_000;

/** The items in order, in as few batches as a statement takes; `chars` is the size of one. */
export function batches<Item>(items: readonly Item[], chars: (item: Item) => number): Item[][] {
  const result: Item[][] = [];
  let batch: Item[] = [];
  let size = 0;
  for (const item of items) {
    if (batch.length === batchMax || (batch.length > 0 && size + chars(item) > batchChars)) {
      result.push(batch);
      batch = [];
      size = 0;
    }
    batch.push(item);
    size += chars(item);
  }
  if (batch.length > 0) result.push(batch);
  return result;
}
