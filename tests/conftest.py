"""Temporary shims are not here; see tests/support."""
import sys, types, pathlib
SRC = pathlib.Path(__file__).parents[1] / "src/comfy_api_service"
if not (SRC/"api/app.py").exists():
    m=types.ModuleType('comfy_api_service.api.app'); m.build_app=lambda s,o: (s,o); sys.modules['comfy_api_service.api.app']=m
    m=types.ModuleType('comfy_api_service.api.services')
    class NS(types.SimpleNamespace): pass
    m.ApiServices=NS; m.ApiOptions=NS; sys.modules['comfy_api_service.api.services']=m
if not (SRC/"comfyui/job_errors.py").exists():
    m=types.ModuleType('comfy_api_service.comfyui.job_errors')
    from comfy_api_service.domain.job import JobError
    from comfy_api_service.domain.errors import Code
    def je(c):
        oom=getattr(c,'out_of_memory',False)
        return JobError(Code.OUT_OF_MEMORY if oom else Code.EXECUTION_FAILED, getattr(c,'message','x'), {}, getattr(c,'node_id',None))
    m.job_error=je; sys.modules['comfy_api_service.comfyui.job_errors']=m
