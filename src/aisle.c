#include "aisle.h"
