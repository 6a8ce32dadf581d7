# Writes a C file with the bytes of files, as `const struct asset ASSET_NAME` (api/assets.h):
#   cmake -DOUT=assets.c "-DFILES=a/shop.css;b/x.json" -P EmbedFiles.cmake
set(text "#include \"api/assets.h\"\n")
foreach(file IN LISTS FILES)
    get_filename_component(name "${file}" NAME)
    string(TOUPPER "${name}" symbol)
    string(REGEX REPLACE "[^A-Z0-9]" "_" symbol "${symbol}")
    file(READ "${file}" hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)"
           "\\1\n" bytes "${bytes}")
    string(APPEND text "\nstatic const unsigned char BYTES_${symbol}[] = {\n${bytes}\n};\n"
           "const struct asset ASSET_${symbol} = {BYTES_${symbol}, sizeof(BYTES_${symbol})};\n")
endforeach()
file(WRITE "${OUT}" "${text}")
