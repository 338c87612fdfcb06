/* This program's version. */
#include "clustermark/version.h"

const char *cm_version_text(void)
{
    return CM_VERSION;
}
