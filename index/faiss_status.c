#include "index/faiss_status.h"

#include <string.h>

#include <faiss/c_api/error_c.h>

enum status faiss_status(int code, enum status otherwise, const char *what, struct error *err)
{
    if (code == 0) {
        return STATUS_OK;
    }
    const char *message = faiss_get_last_error();
    if (message == NULL) {
        message = "unknown failure in FAISS";
    }
    enum status status = strstr(message, "bad_alloc") != NULL ? STATUS_NOMEM : otherwise;
    return error_set(err, status, "%s: %s", what, message);
}
