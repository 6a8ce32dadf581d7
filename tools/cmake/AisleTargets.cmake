# Helpers that declare the project's targets; see the top-level CMakeLists.txt for the rule.

add_library(aisle_warnings INTERFACE)
target_compile_options(aisle_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
    -Wmissing-prototypes -Wold-style-definition -Wvla -Wundef -Wformat=2 -Wcast-qual -Wcast-align
    -Wpointer-arith -Wwrite-strings -Wdouble-promotion -Wimplicit-fallthrough -Wnull-dereference>)
# clang warns of loops that a pragma allows it to vectorise and that it does not: under sanitizers and
# at -O1 these are many, and none matters.
target_compile_options(aisle_warnings INTERFACE
    $<$<COMPILE_LANG_AND_ID:C,Clang>:-Wno-pass-failed>)
if(AISLE_WERROR)
    target_compile_options(aisle_warnings INTERFACE $<$<COMPILE_LANGUAGE:C>:-Werror>)
endif()
target_compile_definitions(aisle_warnings INTERFACE _GNU_SOURCE)
if(AISLE_SANITIZE)
    add_compile_options(-fsanitize=${AISLE_SANITIZE} -fno-omit-frame-pointer
                        -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${AISLE_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    target_compile_options(aisle_warnings INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
                           -fstack-protector-strong)
endif()
if(AISLE_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
    add_link_options(-fsanitize=fuzzer-no-link)
endif()
if(AISLE_COVERAGE)
    add_compile_options(--coverage)
    add_link_options(--coverage)
endif()

# aisle_box(NAME FOLDER SOURCES … LINKS … PRIVATE_LINKS …): a box's static library aisle_NAME,
# whose headers are "NAME/x.h" for its users.
function(aisle_box name folder)
    cmake_parse_arguments(BOX "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
    add_library(aisle_${name} STATIC ${BOX_SOURCES})
    aisle_headers(aisle_${name} ${name} ${folder})
    target_link_libraries(aisle_${name} PUBLIC ${BOX_LINKS} PRIVATE aisle_warnings ${BOX_PRIVATE_LINKS})
endfunction()

function(aisle_headers target name folder)
    set(include "${CMAKE_BINARY_DIR}/include/${name}")
    file(MAKE_DIRECTORY "${include}")
    file(CREATE_LINK "${folder}" "${include}/${name}" SYMBOLIC)
    target_include_directories(${target} PUBLIC "${include}")
endfunction()

# Third parties as imported SYSTEM targets, named 3rd::NAME.
function(aisle_system_package name module)
    pkg_check_modules(AISLE_PKG_${name} REQUIRED IMPORTED_TARGET GLOBAL ${module})
    add_library(3rd::${name} ALIAS PkgConfig::AISLE_PKG_${name})
endfunction()

function(aisle_system_library name header library)
    find_path(AISLE_${name}_INCLUDE ${header} REQUIRED)
    find_library(AISLE_${name}_LIBRARY ${library} REQUIRED)
    add_library(3rd::${name} INTERFACE IMPORTED GLOBAL)
    target_include_directories(3rd::${name} SYSTEM INTERFACE "${AISLE_${name}_INCLUDE}")
    target_link_libraries(3rd::${name} INTERFACE "${AISLE_${name}_LIBRARY}")
endfunction()

# aisle_unit_test(BOX FILE LINKS …): tests/unit/BOX/test_FILE.c → CTest "unit.BOX.FILE".
function(aisle_unit_test box file)
    set(target test_${box}_${file})
    add_executable(${target} ${PROJECT_SOURCE_DIR}/tests/unit/${box}/test_${file}.c)
    target_link_libraries(${target} PRIVATE aisle_warnings 3rd::cmocka ${ARGN})
    target_compile_definitions(${target} PRIVATE
        AISLE_TEST_DATA="${PROJECT_SOURCE_DIR}/data"
        AISLE_TEST_FIXTURES="${PROJECT_SOURCE_DIR}/tests/fixtures"
        AISLE_SHARED_DATA="${PROJECT_SOURCE_DIR}/../shared/data")
    add_test(NAME unit.${box}.${file} COMMAND ${target})
    set_tests_properties(unit.${box}.${file} PROPERTIES LABELS "unit" SKIP_RETURN_CODE 77)
endfunction()
