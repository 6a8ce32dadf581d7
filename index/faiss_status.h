#ifndef AISLE_INDEX_FAISS_STATUS_H
#define AISLE_INDEX_FAISS_STATUS_H

#include "base/status.h"

/* Turns a return code of FAISS' C API into a status and copies FAISS' message at once: it is kept
 * per thread and only until the next failure. 0 is OK; running out of memory is NOMEM; all else is
 * `otherwise`, with "what: message". Must run on the thread that made the call. */
enum status faiss_status(int code, enum status otherwise, const char *what,
                         struct error *err) STATUS_CHECKED;

#endif
