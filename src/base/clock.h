#ifndef AISLE_BASE_CLOCK_H
#define AISLE_BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int64_t clock_monotonic_us(void);
int64_t clock_monotonic_ns(void);
/* CPU time of the calling thread and of the process, in ns. */
int64_t clock_thread_cpu_ns(void);
/* Wall clock, Unix milliseconds. */
int64_t clock_unix_ms(void);

enum { TIME_TEXT_BYTES = 32, RELEASE_VERSION_TEXT_BYTES = 32 };
/* RFC 3339 in UTC with milliseconds ("2026-11-24T10:15:00.123Z"), NUL-terminated. */
void time_format_rfc3339(int64_t unix_ms, char out[TIME_TEXT_BYTES]);
/* Compact form "20261124T101500Z". */
void time_format_compact(int64_t unix_ms, char out[TIME_TEXT_BYTES]);

#endif
