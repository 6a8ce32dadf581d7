-- items.db, the catalogue of a release. SQLite, UTF-8, pages of 4096 bytes.
-- Written once by `aisle build`, then opened read-only and immutable.
--   PRAGMA application_id = 0x4149534c ("AISL")
--   PRAGMA user_version   = 1          (a reader refuses a newer one)
-- The row number is the number of the vector in vectors.safetensors and in the index.

-- What is shown of an item and not needed of all items at once; read by row for the items of an
-- answer only. texts: title, currency, image_url, url and attributes (a JSON object of texts, numbers
-- and bools), in this order, each ended by a NUL, empty where the item has none. One cell rather than
-- five: SQLite copies each TEXT that it hands out to end it with a NUL, and a look-up is what an
-- answer does most. To read it in a shell:
--   SELECT row, replace(CAST(texts AS TEXT), char(0), ' | ') FROM items LIMIT 5;
CREATE TABLE items (
    row INTEGER PRIMARY KEY,
    texts BLOB NOT NULL
);

-- What ranking and filters need of all items, as packed little-endian arrays; read into memory
-- when the catalogue is opened. By type:
--   id                   data: the n ids, each ended by a NUL. Always the first column ("id")
--   number, bool, time   data: n float64; a quiet NaN where the item has no value; dictionary NULL
--   text, category       data: n uint32 codes; 0 where the item has no value, else c stands for
--                        text c - 1 of the dictionary: distinct texts, each ended by a NUL
-- Always there: price, stock (number), category (category), brand (text), created_at (time),
-- popularity (number, never NaN). The others are "attributes.NAME".
CREATE TABLE columns (
    position INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    data BLOB NOT NULL,
    dictionary BLOB
);
