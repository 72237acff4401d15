"""Generated from grpc/reflection/v1alpha/reflection.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load

load(
    globals(),
    b'\n(grpc/reflection/v1alpha/reflection.proto\x12\x17grpc.reflection.'
    b'v1alpha"\xf8\x02\n\x17ServerReflectionRequest\x12\x12\n\x04host\x18\x01 \x01(\tR\x04host\x12*\n\x10f'
    b'ile_by_filename\x18\x03 \x01(\tH\x00R\x0efileByFilename\x126\n\x16file_containing_s'
    b'ymbol\x18\x04 \x01(\tH\x00R\x14fileContainingSymbol\x12g\n\x19file_containing_exten'
    b'sion\x18\x05 \x01(\x0b2).grpc.reflection.v1alpha.ExtensionRequestH\x00R\x17fil'
    b'eContainingExtension\x12B\n\x1dall_extension_numbers_of_type\x18\x06 \x01(\tH'
    b'\x00R\x19allExtensionNumbersOfType\x12%\n\rlist_services\x18\x07 \x01(\tH\x00R\x0clistS'
    b'ervicesB\x11\n\x0fmessage_request"f\n\x10ExtensionRequest\x12\'\n\x0fcontaining'
    b'_type\x18\x01 \x01(\tR\x0econtainingType\x12)\n\x10extension_number\x18\x02 \x01(\x05R\x0fexten'
    b'sionNumber"\xc7\x04\n\x18ServerReflectionResponse\x12\x1d\n\nvalid_host\x18\x01 \x01(\tR'
    b'\tvalidHost\x12[\n\x10original_request\x18\x02 \x01(\x0b20.grpc.reflection.v1alp'
    b'ha.ServerReflectionRequestR\x0foriginalRequest\x12k\n\x18file_descript'
    b'or_response\x18\x04 \x01(\x0b2/.grpc.reflection.v1alpha.FileDescriptorRe'
    b'sponseH\x00R\x16fileDescriptorResponse\x12w\n\x1eall_extension_numbers_re'
    b'sponse\x18\x05 \x01(\x0b20.grpc.reflection.v1alpha.ExtensionNumberRespon'
    b'seH\x00R\x1ballExtensionNumbersResponse\x12d\n\x16list_services_response\x18'
    b'\x06 \x01(\x0b2,.grpc.reflection.v1alpha.ListServiceResponseH\x00R\x14listS'
    b'ervicesResponse\x12O\n\x0eerror_response\x18\x07 \x01(\x0b2&.grpc.reflection.v1'
    b'alpha.ErrorResponseH\x00R\rerrorResponseB\x12\n\x10message_response"L\n\x16'
    b'FileDescriptorResponse\x122\n\x15file_descriptor_proto\x18\x01 \x03(\x0cR\x13fileD'
    b'escriptorProto"j\n\x17ExtensionNumberResponse\x12$\n\x0ebase_type_name\x18'
    b'\x01 \x01(\tR\x0cbaseTypeName\x12)\n\x10extension_number\x18\x02 \x03(\x05R\x0fextensionNumb'
    b'er"Y\n\x13ListServiceResponse\x12B\n\x07service\x18\x01 \x03(\x0b2(.grpc.reflection'
    b'.v1alpha.ServiceResponseR\x07service"%\n\x0fServiceResponse\x12\x12\n\x04name'
    b'\x18\x01 \x01(\tR\x04name"S\n\rErrorResponse\x12\x1d\n\nerror_code\x18\x01 \x01(\x05R\terrorCode'
    b'\x12#\n\rerror_message\x18\x02 \x01(\tR\x0cerrorMessage2\x93\x01\n\x10ServerReflection\x12\x7f'
    b'\n\x14ServerReflectionInfo\x120.grpc.reflection.v1alpha.ServerRefle'
    b'ctionRequest\x1a1.grpc.reflection.v1alpha.ServerReflectionRespo'
    b'nse(\x010\x01b\x06proto3'
)
