#ifndef AISLE_API_ASSETS_H
#define AISLE_API_ASSETS_H

#include <stddef.h>

/* Files compiled into the program (tools/cmake/EmbedFiles.cmake writes their bytes). */
struct asset {
    const unsigned char *bytes;
    size_t n_bytes;
};
extern const struct asset ASSET_OPENAPI_JSON;
extern const struct asset ASSET_SHOP_HTML;
extern const struct asset ASSET_SHOP_CSS;
extern const struct asset ASSET_SHOP_JS;

#endif
