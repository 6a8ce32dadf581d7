# FindFaissC - finds FAISS together with its C API.
#
# Looked for, in this order:
#   1. AISLE_FAISS_DIR, a CMake variable or else an environment variable; when it
#      is given, nothing else is tried;
#   2. aisle/faiss-current in the cache folder (XDG_CACHE_HOME, or .cache in
#      HOME), a link that tools/setup keeps;
#   3. the system.
#
# Defines the imported target Faiss::C.  Headers are reached as
# <faiss/c_api/Index_c.h> and count as system headers.  Everything FAISS, a C++
# library, needs at link time comes along, so a pure C project can use it.
#
# Sets FaissC_FOUND, FaissC_VERSION, FaissC_INCLUDE_DIR and FaissC_LIBRARIES.

# No cache entries are kept: tools/setup may change what faiss-current leads to,
# and a remembered answer would then be wrong.
set(FaissC_INCLUDE_DIR "")
set(FaissC_LIBRARIES "")
set(FaissC_VERSION "")
set(_faissc_hint "")

# --- 1. and 2.: a folder made by tools/setup ----------------------------------

set(_faissc_dir "")
if(AISLE_FAISS_DIR)
  set(_faissc_dir "${AISLE_FAISS_DIR}")
elseif(NOT "$ENV{AISLE_FAISS_DIR}" STREQUAL "")
  set(_faissc_dir "$ENV{AISLE_FAISS_DIR}")
endif()

if(_faissc_dir)
  set(_faissc_only_dir TRUE)
  get_filename_component(_faissc_dir "${_faissc_dir}" ABSOLUTE BASE_DIR "${CMAKE_SOURCE_DIR}")
  set(_faissc_hint " in AISLE_FAISS_DIR (${_faissc_dir})")
else()
  set(_faissc_only_dir FALSE)
  if(IS_ABSOLUTE "$ENV{XDG_CACHE_HOME}")
    set(_faissc_cache "$ENV{XDG_CACHE_HOME}")
  else()
    set(_faissc_home "$ENV{HOME}")
    if(_faissc_home STREQUAL "")
      execute_process(COMMAND sh -c "getent passwd \"$(id -u)\" | cut -d: -f6"
                      OUTPUT_VARIABLE _faissc_home OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    set(_faissc_cache "${_faissc_home}/.cache")
  endif()
  set(_faissc_dir "${_faissc_cache}/aisle/faiss-current")
  set(_faissc_hint " in ${_faissc_dir} or in the system")
endif()

if(EXISTS "${_faissc_dir}/include/faiss/c_api/Index_c.h"
   AND EXISTS "${_faissc_dir}/lib/libfaiss_c.a"
   AND EXISTS "${_faissc_dir}/lib/libfaiss.a")
  set(FaissC_INCLUDE_DIR "${_faissc_dir}/include")
  # The C API calls into the library, hence this order for static linking.
  set(FaissC_LIBRARIES "${_faissc_dir}/lib/libfaiss_c.a" "${_faissc_dir}/lib/libfaiss.a")
endif()

# --- 3.: the system -----------------------------------------------------------

if(NOT FaissC_LIBRARIES AND NOT _faissc_only_dir)
  # Static first, as in 1. and 2.: one file to deploy, and no symbols to look up.
  find_library(_faissc_c_library NAMES libfaiss_c.a faiss_c)
  find_library(_faissc_library NAMES libfaiss_avx2.a libfaiss.a faiss)
  find_path(_faissc_header_dir NAMES faiss/c_api/Index_c.h)
  if(NOT _faissc_header_dir)
    # Some packages put the C headers beside faiss/ instead of below it; a link in
    # the build folder gives them the name the sources use.
    find_path(_faissc_flat_dir NAMES c_api/Index_c.h)
    if(_faissc_flat_dir)
      file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/faiss-headers/faiss")
      file(CREATE_LINK "${_faissc_flat_dir}/c_api" "${CMAKE_BINARY_DIR}/faiss-headers/faiss/c_api"
           SYMBOLIC)
      set(_faissc_header_dir "${CMAKE_BINARY_DIR}/faiss-headers")
    endif()
    unset(_faissc_flat_dir CACHE)
  endif()
  if(_faissc_c_library AND _faissc_library AND _faissc_header_dir)
    set(FaissC_INCLUDE_DIR "${_faissc_header_dir}")
    set(FaissC_LIBRARIES "${_faissc_c_library}" "${_faissc_library}")
  endif()
  unset(_faissc_c_library CACHE)
  unset(_faissc_library CACHE)
  unset(_faissc_header_dir CACHE)
endif()

# --- result -------------------------------------------------------------------

foreach(_faissc_index_h "${FaissC_INCLUDE_DIR}/faiss/Index.h" "/usr/include/faiss/Index.h")
  if(FaissC_INCLUDE_DIR AND NOT FaissC_VERSION AND EXISTS "${_faissc_index_h}")
    file(STRINGS "${_faissc_index_h}" _faissc_lines
         REGEX "^#define FAISS_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
    string(REGEX MATCHALL "[0-9]+" _faissc_numbers "${_faissc_lines}")
    list(JOIN _faissc_numbers "." FaissC_VERSION)
  endif()
endforeach()

set(_faissc_version_args "")
if(FaissC_VERSION)
  set(_faissc_version_args VERSION_VAR FaissC_VERSION)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(FaissC
  REQUIRED_VARS FaissC_LIBRARIES FaissC_INCLUDE_DIR
  ${_faissc_version_args}
  FAIL_MESSAGE "FAISS with its C API was not found${_faissc_hint}: run tools/setup")

if(FaissC_FOUND AND NOT TARGET Faiss::C)
  # One OpenMP runtime a process: FAISS was compiled for gcc's, whose entry points
  # clang's offers too. With both, threads of one do not know those of the other.
  set(_faissc_openmp gomp)
  if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    find_package(OpenMP REQUIRED COMPONENTS C)
    set(_faissc_openmp OpenMP::OpenMP_C)
  endif()
  add_library(Faiss::C INTERFACE IMPORTED)
  set_target_properties(Faiss::C PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${FaissC_INCLUDE_DIR}"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${FaissC_INCLUDE_DIR}"
    # FAISS first, then what it uses.  gomp and stdc++ are named and not looked
    # up: they live in the compiler's own folder, which gcc and clang both search.
    INTERFACE_LINK_LIBRARIES
      "${FaissC_LIBRARIES};openblas;lapack;${_faissc_openmp};stdc++;m;pthread")
endif()

foreach(_faissc_name openmp hint dir only_dir home cache index_h lines numbers version_args)
  unset(_faissc_${_faissc_name})
endforeach()
