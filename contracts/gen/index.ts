// Made by contracts/generate.ts from the descriptor set. DO NOT EDIT.
import { AgentDefinition as aios_agent_AgentDefinition } from "./aios/agent.ts";
import { ApiGatewayDefinition as aios_api_gateway_ApiGatewayDefinition } from "./aios/api_gateway.ts";
import { MemoryServiceDefinition as aios_memory_MemoryServiceDefinition } from "./aios/memory.ts";
import { OrchestratorDefinition as aios_orchestrator_OrchestratorDefinition } from "./aios/orchestrator.ts";
import { AIRuntimeDefinition as aios_runtime_AIRuntimeDefinition } from "./aios/runtime.ts";
import { ToolRegistryDefinition as aios_tools_ToolRegistryDefinition } from "./aios/tools.ts";
import { RouterDefinition as beamline_flow_v1_RouterDefinition } from "./beamline/flow/v1/flow.ts";
import { RouterAdminDefinition as beamline_flow_v1_RouterAdminDefinition } from "./beamline/flow/v1/flow.ts";
import { ProviderDefinition as beamline_provider_v1_ProviderDefinition } from "./beamline/provider/v1/provider.ts";
import { EngineDefinition as openwop_v1_EngineDefinition } from "./openwop/v1/openwop.ts";
import { AgentStatusResponse as aios_agent_AgentStatusResponse } from "./aios/agent.ts";
import { CancelTaskRequest as aios_agent_CancelTaskRequest } from "./aios/agent.ts";
import { ApiInferRequest as aios_api_gateway_ApiInferRequest } from "./aios/api_gateway.ts";
import { BudgetStatus as aios_api_gateway_BudgetStatus } from "./aios/api_gateway.ts";
import { StreamChunk as aios_api_gateway_StreamChunk } from "./aios/api_gateway.ts";
import { UsageRecord as aios_api_gateway_UsageRecord } from "./aios/api_gateway.ts";
import { UsageRequest as aios_api_gateway_UsageRequest } from "./aios/api_gateway.ts";
import { UsageResponse as aios_api_gateway_UsageResponse } from "./aios/api_gateway.ts";
import { AgentId as aios_common_AgentId } from "./aios/common.ts";
import { AgentRegistration as aios_common_AgentRegistration } from "./aios/common.ts";
import { Empty as aios_common_Empty } from "./aios/common.ts";
import { Goal as aios_common_Goal } from "./aios/common.ts";
import { GoalId as aios_common_GoalId } from "./aios/common.ts";
import { HealthStatus as aios_common_HealthStatus } from "./aios/common.ts";
import { InferenceRequest as aios_common_InferenceRequest } from "./aios/common.ts";
import { InferenceResponse as aios_common_InferenceResponse } from "./aios/common.ts";
import { ServiceRegistration as aios_common_ServiceRegistration } from "./aios/common.ts";
import { Status as aios_common_Status } from "./aios/common.ts";
import { Task as aios_common_Task } from "./aios/common.ts";
import { TaskResult as aios_common_TaskResult } from "./aios/common.ts";
import { AgentState as aios_memory_AgentState } from "./aios/memory.ts";
import { AgentStateRequest as aios_memory_AgentStateRequest } from "./aios/memory.ts";
import { ConfigChange as aios_memory_ConfigChange } from "./aios/memory.ts";
import { ContextChunk as aios_memory_ContextChunk } from "./aios/memory.ts";
import { ContextRequest as aios_memory_ContextRequest } from "./aios/memory.ts";
import { ContextResponse as aios_memory_ContextResponse } from "./aios/memory.ts";
import { Decision as aios_memory_Decision } from "./aios/memory.ts";
import { Empty as aios_memory_Empty } from "./aios/memory.ts";
import { Event as aios_memory_Event } from "./aios/memory.ts";
import { EventList as aios_memory_EventList } from "./aios/memory.ts";
import { GoalIdRequest as aios_memory_GoalIdRequest } from "./aios/memory.ts";
import { GoalList as aios_memory_GoalList } from "./aios/memory.ts";
import { GoalRecord as aios_memory_GoalRecord } from "./aios/memory.ts";
import { GoalUpdate as aios_memory_GoalUpdate } from "./aios/memory.ts";
import { Incident as aios_memory_Incident } from "./aios/memory.ts";
import { KnowledgeEntry as aios_memory_KnowledgeEntry } from "./aios/memory.ts";
import { MetricRequest as aios_memory_MetricRequest } from "./aios/memory.ts";
import { MetricUpdate as aios_memory_MetricUpdate } from "./aios/memory.ts";
import { MetricValue as aios_memory_MetricValue } from "./aios/memory.ts";
import { Pattern as aios_memory_Pattern } from "./aios/memory.ts";
import { PatternQuery as aios_memory_PatternQuery } from "./aios/memory.ts";
import { PatternResult as aios_memory_PatternResult } from "./aios/memory.ts";
import { PatternStatsUpdate as aios_memory_PatternStatsUpdate } from "./aios/memory.ts";
import { Procedure as aios_memory_Procedure } from "./aios/memory.ts";
import { RecentEventsRequest as aios_memory_RecentEventsRequest } from "./aios/memory.ts";
import { SearchResult as aios_memory_SearchResult } from "./aios/memory.ts";
import { SearchResults as aios_memory_SearchResults } from "./aios/memory.ts";
import { SemanticSearchRequest as aios_memory_SemanticSearchRequest } from "./aios/memory.ts";
import { SystemSnapshot as aios_memory_SystemSnapshot } from "./aios/memory.ts";
import { TaskList as aios_memory_TaskList } from "./aios/memory.ts";
import { TaskRecord as aios_memory_TaskRecord } from "./aios/memory.ts";
import { ToolCallRecord as aios_memory_ToolCallRecord } from "./aios/memory.ts";
import { AgentListResponse as aios_orchestrator_AgentListResponse } from "./aios/orchestrator.ts";
import { CapabilityRequest as aios_orchestrator_CapabilityRequest } from "./aios/orchestrator.ts";
import { CapabilityResponse as aios_orchestrator_CapabilityResponse } from "./aios/orchestrator.ts";
import { CapabilityRevocation as aios_orchestrator_CapabilityRevocation } from "./aios/orchestrator.ts";
import { CreateScheduleRequest as aios_orchestrator_CreateScheduleRequest } from "./aios/orchestrator.ts";
import { DeleteScheduleRequest as aios_orchestrator_DeleteScheduleRequest } from "./aios/orchestrator.ts";
import { GoalListResponse as aios_orchestrator_GoalListResponse } from "./aios/orchestrator.ts";
import { GoalStatusResponse as aios_orchestrator_GoalStatusResponse } from "./aios/orchestrator.ts";
import { HeartbeatRequest as aios_orchestrator_HeartbeatRequest } from "./aios/orchestrator.ts";
import { ListGoalsRequest as aios_orchestrator_ListGoalsRequest } from "./aios/orchestrator.ts";
import { ListNodesRequest as aios_orchestrator_ListNodesRequest } from "./aios/orchestrator.ts";
import { NodeInfo as aios_orchestrator_NodeInfo } from "./aios/orchestrator.ts";
import { NodeListResponse as aios_orchestrator_NodeListResponse } from "./aios/orchestrator.ts";
import { NodeRegistration as aios_orchestrator_NodeRegistration } from "./aios/orchestrator.ts";
import { NodeStatus as aios_orchestrator_NodeStatus } from "./aios/orchestrator.ts";
import { ScheduleEntry as aios_orchestrator_ScheduleEntry } from "./aios/orchestrator.ts";
import { ScheduleListResponse as aios_orchestrator_ScheduleListResponse } from "./aios/orchestrator.ts";
import { ScheduleResponse as aios_orchestrator_ScheduleResponse } from "./aios/orchestrator.ts";
import { SubmitGoalRequest as aios_orchestrator_SubmitGoalRequest } from "./aios/orchestrator.ts";
import { SystemStatusResponse as aios_orchestrator_SystemStatusResponse } from "./aios/orchestrator.ts";
import { InferChunk as aios_runtime_InferChunk } from "./aios/runtime.ts";
import { InferRequest as aios_runtime_InferRequest } from "./aios/runtime.ts";
import { InferResponse as aios_runtime_InferResponse } from "./aios/runtime.ts";
import { LoadModelRequest as aios_runtime_LoadModelRequest } from "./aios/runtime.ts";
import { ModelList as aios_runtime_ModelList } from "./aios/runtime.ts";
import { ModelStatus as aios_runtime_ModelStatus } from "./aios/runtime.ts";
import { UnloadModelRequest as aios_runtime_UnloadModelRequest } from "./aios/runtime.ts";
import { DeregisterToolRequest as aios_tools_DeregisterToolRequest } from "./aios/tools.ts";
import { ExecuteRequest as aios_tools_ExecuteRequest } from "./aios/tools.ts";
import { ExecuteResponse as aios_tools_ExecuteResponse } from "./aios/tools.ts";
import { GetToolRequest as aios_tools_GetToolRequest } from "./aios/tools.ts";
import { ListToolsRequest as aios_tools_ListToolsRequest } from "./aios/tools.ts";
import { ListToolsResponse as aios_tools_ListToolsResponse } from "./aios/tools.ts";
import { RegisterToolRequest as aios_tools_RegisterToolRequest } from "./aios/tools.ts";
import { RegisterToolResponse as aios_tools_RegisterToolResponse } from "./aios/tools.ts";
import { RollbackRequest as aios_tools_RollbackRequest } from "./aios/tools.ts";
import { RollbackResponse as aios_tools_RollbackResponse } from "./aios/tools.ts";
import { Status as aios_tools_Status } from "./aios/tools.ts";
import { ToolDefinition as aios_tools_ToolDefinitionDefinition } from "./aios/tools.ts";
import { AdminPolicy as beamline_flow_v1_AdminPolicy } from "./beamline/flow/v1/flow.ts";
import { AdminProvider as beamline_flow_v1_AdminProvider } from "./beamline/flow/v1/flow.ts";
import { AdminRule as beamline_flow_v1_AdminRule } from "./beamline/flow/v1/flow.ts";
import { BackpressureMetrics as beamline_flow_v1_BackpressureMetrics } from "./beamline/flow/v1/flow.ts";
import { BackpressurePolicy as beamline_flow_v1_BackpressurePolicy } from "./beamline/flow/v1/flow.ts";
import { BackpressureStatus as beamline_flow_v1_BackpressureStatus } from "./beamline/flow/v1/flow.ts";
import { BackpressureThresholds as beamline_flow_v1_BackpressureThresholds } from "./beamline/flow/v1/flow.ts";
import { CheckpointStatus as beamline_flow_v1_CheckpointStatus } from "./beamline/flow/v1/flow.ts";
import { CircuitBreakerState as beamline_flow_v1_CircuitBreakerState } from "./beamline/flow/v1/flow.ts";
import { DeletePolicyRequest as beamline_flow_v1_DeletePolicyRequest } from "./beamline/flow/v1/flow.ts";
import { DeletePolicyResponse as beamline_flow_v1_DeletePolicyResponse } from "./beamline/flow/v1/flow.ts";
import { DryRunPipelineRequest as beamline_flow_v1_DryRunPipelineRequest } from "./beamline/flow/v1/flow.ts";
import { DryRunPipelineResponse as beamline_flow_v1_DryRunPipelineResponse } from "./beamline/flow/v1/flow.ts";
import { DryRunPipelineResult as beamline_flow_v1_DryRunPipelineResult } from "./beamline/flow/v1/flow.ts";
import { ExecutedExtension as beamline_flow_v1_ExecutedExtension } from "./beamline/flow/v1/flow.ts";
import { ExtensionHealth as beamline_flow_v1_ExtensionHealth } from "./beamline/flow/v1/flow.ts";
import { GetBackpressureStatusRequest as beamline_flow_v1_GetBackpressureStatusRequest } from "./beamline/flow/v1/flow.ts";
import { GetBackpressureStatusResponse as beamline_flow_v1_GetBackpressureStatusResponse } from "./beamline/flow/v1/flow.ts";
import { GetCheckpointStatusRequest as beamline_flow_v1_GetCheckpointStatusRequest } from "./beamline/flow/v1/flow.ts";
import { GetCheckpointStatusResponse as beamline_flow_v1_GetCheckpointStatusResponse } from "./beamline/flow/v1/flow.ts";
import { GetCircuitBreakerStatesRequest as beamline_flow_v1_GetCircuitBreakerStatesRequest } from "./beamline/flow/v1/flow.ts";
import { GetCircuitBreakerStatesResponse as beamline_flow_v1_GetCircuitBreakerStatesResponse } from "./beamline/flow/v1/flow.ts";
import { GetDecisionRequest as beamline_flow_v1_GetDecisionRequest } from "./beamline/flow/v1/flow.ts";
import { GetExtensionHealthRequest as beamline_flow_v1_GetExtensionHealthRequest } from "./beamline/flow/v1/flow.ts";
import { GetExtensionHealthResponse as beamline_flow_v1_GetExtensionHealthResponse } from "./beamline/flow/v1/flow.ts";
import { GetPipelineComplexityRequest as beamline_flow_v1_GetPipelineComplexityRequest } from "./beamline/flow/v1/flow.ts";
import { GetPipelineComplexityResponse as beamline_flow_v1_GetPipelineComplexityResponse } from "./beamline/flow/v1/flow.ts";
import { GetPolicyRequest as beamline_flow_v1_GetPolicyRequest } from "./beamline/flow/v1/flow.ts";
import { GetPolicyResponse as beamline_flow_v1_GetPolicyResponse } from "./beamline/flow/v1/flow.ts";
import { GetValidatorsHealthRequest as beamline_flow_v1_GetValidatorsHealthRequest } from "./beamline/flow/v1/flow.ts";
import { GetValidatorsHealthResponse as beamline_flow_v1_GetValidatorsHealthResponse } from "./beamline/flow/v1/flow.ts";
import { ListPoliciesRequest as beamline_flow_v1_ListPoliciesRequest } from "./beamline/flow/v1/flow.ts";
import { ListPoliciesResponse as beamline_flow_v1_ListPoliciesResponse } from "./beamline/flow/v1/flow.ts";
import { Message as beamline_flow_v1_Message } from "./beamline/flow/v1/flow.ts";
import { PipelineComplexity as beamline_flow_v1_PipelineComplexity } from "./beamline/flow/v1/flow.ts";
import { PipelineLimits as beamline_flow_v1_PipelineLimits } from "./beamline/flow/v1/flow.ts";
import { RouteDecision as beamline_flow_v1_RouteDecision } from "./beamline/flow/v1/flow.ts";
import { RouteRequest as beamline_flow_v1_RouteRequest } from "./beamline/flow/v1/flow.ts";
import { UpsertPolicyRequest as beamline_flow_v1_UpsertPolicyRequest } from "./beamline/flow/v1/flow.ts";
import { UpsertPolicyResponse as beamline_flow_v1_UpsertPolicyResponse } from "./beamline/flow/v1/flow.ts";
import { ValidatorStatus as beamline_flow_v1_ValidatorStatus } from "./beamline/flow/v1/flow.ts";
import { ProviderRequest as beamline_provider_v1_ProviderRequest } from "./beamline/provider/v1/provider.ts";
import { ProviderResponse as beamline_provider_v1_ProviderResponse } from "./beamline/provider/v1/provider.ts";
import { StreamChunk as beamline_provider_v1_StreamChunk } from "./beamline/provider/v1/provider.ts";
import { Alert as beamline_worker_v1_Alert } from "./beamline/worker/v1/alert.ts";
import { AssignmentJob as beamline_worker_v1_AssignmentJob } from "./beamline/worker/v1/assignment.ts";
import { Correlation as beamline_worker_v1_Correlation } from "./beamline/worker/v1/assignment.ts";
import { ExecAssignment as beamline_worker_v1_ExecAssignment } from "./beamline/worker/v1/assignment.ts";
import { ExecAssignmentAck as beamline_worker_v1_ExecAssignmentAck } from "./beamline/worker/v1/ack.ts";
import { ExecOptions as beamline_worker_v1_ExecOptions } from "./beamline/worker/v1/assignment.ts";
import { ExecResult as beamline_worker_v1_ExecResult } from "./beamline/worker/v1/result.ts";
import { Executor as beamline_worker_v1_Executor } from "./beamline/worker/v1/assignment.ts";
import { Job as beamline_worker_v1_Job } from "./beamline/worker/v1/result.ts";
import { RetryOptions as beamline_worker_v1_RetryOptions } from "./beamline/worker/v1/assignment.ts";
import { UsageEvent as beamline_worker_v1_UsageEvent } from "./beamline/worker/v1/usage.ts";
import { WorkerHeartbeat as beamline_worker_v1_WorkerHeartbeat } from "./beamline/worker/v1/heartbeat.ts";
import { WorkerResources as beamline_worker_v1_WorkerResources } from "./beamline/worker/v1/heartbeat.ts";
import { Empty as google_protobuf_Empty } from "./google/protobuf/empty.ts";
import { BulkCancelRunResult as openwop_v1_BulkCancelRunResult } from "./openwop/v1/openwop.ts";
import { BulkCancelRunsRequest as openwop_v1_BulkCancelRunsRequest } from "./openwop/v1/openwop.ts";
import { BulkCancelRunsResponse as openwop_v1_BulkCancelRunsResponse } from "./openwop/v1/openwop.ts";
import { CancelRunRequest as openwop_v1_CancelRunRequest } from "./openwop/v1/openwop.ts";
import { CancelRunResponse as openwop_v1_CancelRunResponse } from "./openwop/v1/openwop.ts";
import { CreateRunRequest as openwop_v1_CreateRunRequest } from "./openwop/v1/openwop.ts";
import { CreateRunResponse as openwop_v1_CreateRunResponse } from "./openwop/v1/openwop.ts";
import { ForkRunRequest as openwop_v1_ForkRunRequest } from "./openwop/v1/openwop.ts";
import { ForkRunResponse as openwop_v1_ForkRunResponse } from "./openwop/v1/openwop.ts";
import { GetArtifactRequest as openwop_v1_GetArtifactRequest } from "./openwop/v1/openwop.ts";
import { GetArtifactResponse as openwop_v1_GetArtifactResponse } from "./openwop/v1/openwop.ts";
import { GetCapabilitiesRequest as openwop_v1_GetCapabilitiesRequest } from "./openwop/v1/openwop.ts";
import { GetCapabilitiesResponse as openwop_v1_GetCapabilitiesResponse } from "./openwop/v1/openwop.ts";
import { GetRunRequest as openwop_v1_GetRunRequest } from "./openwop/v1/openwop.ts";
import { GetRunResponse as openwop_v1_GetRunResponse } from "./openwop/v1/openwop.ts";
import { GetWorkflowRequest as openwop_v1_GetWorkflowRequest } from "./openwop/v1/openwop.ts";
import { GetWorkflowResponse as openwop_v1_GetWorkflowResponse } from "./openwop/v1/openwop.ts";
import { InspectInterruptByTokenRequest as openwop_v1_InspectInterruptByTokenRequest } from "./openwop/v1/openwop.ts";
import { InspectInterruptResponse as openwop_v1_InspectInterruptResponse } from "./openwop/v1/openwop.ts";
import { PauseRunRequest as openwop_v1_PauseRunRequest } from "./openwop/v1/openwop.ts";
import { PauseRunResponse as openwop_v1_PauseRunResponse } from "./openwop/v1/openwop.ts";
import { RegisterWebhookRequest as openwop_v1_RegisterWebhookRequest } from "./openwop/v1/openwop.ts";
import { RegisterWebhookResponse as openwop_v1_RegisterWebhookResponse } from "./openwop/v1/openwop.ts";
import { ResolveInterruptByRunRequest as openwop_v1_ResolveInterruptByRunRequest } from "./openwop/v1/openwop.ts";
import { ResolveInterruptByTokenRequest as openwop_v1_ResolveInterruptByTokenRequest } from "./openwop/v1/openwop.ts";
import { ResolveInterruptResponse as openwop_v1_ResolveInterruptResponse } from "./openwop/v1/openwop.ts";
import { ResumeRunRequest as openwop_v1_ResumeRunRequest } from "./openwop/v1/openwop.ts";
import { ResumeRunResponse as openwop_v1_ResumeRunResponse } from "./openwop/v1/openwop.ts";
import { RunEventEnvelope as openwop_v1_RunEventEnvelope } from "./openwop/v1/openwop.ts";
import { StreamRunEventsRequest as openwop_v1_StreamRunEventsRequest } from "./openwop/v1/openwop.ts";
import { UnregisterWebhookRequest as openwop_v1_UnregisterWebhookRequest } from "./openwop/v1/openwop.ts";
import { VerifyAuditLogRequest as openwop_v1_VerifyAuditLogRequest } from "./openwop/v1/openwop.ts";
import { VerifyAuditLogResponse as openwop_v1_VerifyAuditLogResponse } from "./openwop/v1/openwop.ts";

/** Every service of every package, ordered by full name. */
export const services = [
  aios_agent_AgentDefinition,
  aios_api_gateway_ApiGatewayDefinition,
  aios_memory_MemoryServiceDefinition,
  aios_orchestrator_OrchestratorDefinition,
  aios_runtime_AIRuntimeDefinition,
  aios_tools_ToolRegistryDefinition,
  beamline_flow_v1_RouterDefinition,
  beamline_flow_v1_RouterAdminDefinition,
  beamline_provider_v1_ProviderDefinition,
  openwop_v1_EngineDefinition,
] as const;

/** Every message by full name: those of our packages, and those any RPC takes or returns. */
export const messages = {
  "aios.agent.AgentStatusResponse": aios_agent_AgentStatusResponse,
  "aios.agent.CancelTaskRequest": aios_agent_CancelTaskRequest,
  "aios.api_gateway.ApiInferRequest": aios_api_gateway_ApiInferRequest,
  "aios.api_gateway.BudgetStatus": aios_api_gateway_BudgetStatus,
  "aios.api_gateway.StreamChunk": aios_api_gateway_StreamChunk,
  "aios.api_gateway.UsageRecord": aios_api_gateway_UsageRecord,
  "aios.api_gateway.UsageRequest": aios_api_gateway_UsageRequest,
  "aios.api_gateway.UsageResponse": aios_api_gateway_UsageResponse,
  "aios.common.AgentId": aios_common_AgentId,
  "aios.common.AgentRegistration": aios_common_AgentRegistration,
  "aios.common.Empty": aios_common_Empty,
  "aios.common.Goal": aios_common_Goal,
  "aios.common.GoalId": aios_common_GoalId,
  "aios.common.HealthStatus": aios_common_HealthStatus,
  "aios.common.InferenceRequest": aios_common_InferenceRequest,
  "aios.common.InferenceResponse": aios_common_InferenceResponse,
  "aios.common.ServiceRegistration": aios_common_ServiceRegistration,
  "aios.common.Status": aios_common_Status,
  "aios.common.Task": aios_common_Task,
  "aios.common.TaskResult": aios_common_TaskResult,
  "aios.memory.AgentState": aios_memory_AgentState,
  "aios.memory.AgentStateRequest": aios_memory_AgentStateRequest,
  "aios.memory.ConfigChange": aios_memory_ConfigChange,
  "aios.memory.ContextChunk": aios_memory_ContextChunk,
  "aios.memory.ContextRequest": aios_memory_ContextRequest,
  "aios.memory.ContextResponse": aios_memory_ContextResponse,
  "aios.memory.Decision": aios_memory_Decision,
  "aios.memory.Empty": aios_memory_Empty,
  "aios.memory.Event": aios_memory_Event,
  "aios.memory.EventList": aios_memory_EventList,
  "aios.memory.GoalIdRequest": aios_memory_GoalIdRequest,
  "aios.memory.GoalList": aios_memory_GoalList,
  "aios.memory.GoalRecord": aios_memory_GoalRecord,
  "aios.memory.GoalUpdate": aios_memory_GoalUpdate,
  "aios.memory.Incident": aios_memory_Incident,
  "aios.memory.KnowledgeEntry": aios_memory_KnowledgeEntry,
  "aios.memory.MetricRequest": aios_memory_MetricRequest,
  "aios.memory.MetricUpdate": aios_memory_MetricUpdate,
  "aios.memory.MetricValue": aios_memory_MetricValue,
  "aios.memory.Pattern": aios_memory_Pattern,
  "aios.memory.PatternQuery": aios_memory_PatternQuery,
  "aios.memory.PatternResult": aios_memory_PatternResult,
  "aios.memory.PatternStatsUpdate": aios_memory_PatternStatsUpdate,
  "aios.memory.Procedure": aios_memory_Procedure,
  "aios.memory.RecentEventsRequest": aios_memory_RecentEventsRequest,
  "aios.memory.SearchResult": aios_memory_SearchResult,
  "aios.memory.SearchResults": aios_memory_SearchResults,
  "aios.memory.SemanticSearchRequest": aios_memory_SemanticSearchRequest,
  "aios.memory.SystemSnapshot": aios_memory_SystemSnapshot,
  "aios.memory.TaskList": aios_memory_TaskList,
  "aios.memory.TaskRecord": aios_memory_TaskRecord,
  "aios.memory.ToolCallRecord": aios_memory_ToolCallRecord,
  "aios.orchestrator.AgentListResponse": aios_orchestrator_AgentListResponse,
  "aios.orchestrator.CapabilityRequest": aios_orchestrator_CapabilityRequest,
  "aios.orchestrator.CapabilityResponse": aios_orchestrator_CapabilityResponse,
  "aios.orchestrator.CapabilityRevocation": aios_orchestrator_CapabilityRevocation,
  "aios.orchestrator.CreateScheduleRequest": aios_orchestrator_CreateScheduleRequest,
  "aios.orchestrator.DeleteScheduleRequest": aios_orchestrator_DeleteScheduleRequest,
  "aios.orchestrator.GoalListResponse": aios_orchestrator_GoalListResponse,
  "aios.orchestrator.GoalStatusResponse": aios_orchestrator_GoalStatusResponse,
  "aios.orchestrator.HeartbeatRequest": aios_orchestrator_HeartbeatRequest,
  "aios.orchestrator.ListGoalsRequest": aios_orchestrator_ListGoalsRequest,
  "aios.orchestrator.ListNodesRequest": aios_orchestrator_ListNodesRequest,
  "aios.orchestrator.NodeInfo": aios_orchestrator_NodeInfo,
  "aios.orchestrator.NodeListResponse": aios_orchestrator_NodeListResponse,
  "aios.orchestrator.NodeRegistration": aios_orchestrator_NodeRegistration,
  "aios.orchestrator.NodeStatus": aios_orchestrator_NodeStatus,
  "aios.orchestrator.ScheduleEntry": aios_orchestrator_ScheduleEntry,
  "aios.orchestrator.ScheduleListResponse": aios_orchestrator_ScheduleListResponse,
  "aios.orchestrator.ScheduleResponse": aios_orchestrator_ScheduleResponse,
  "aios.orchestrator.SubmitGoalRequest": aios_orchestrator_SubmitGoalRequest,
  "aios.orchestrator.SystemStatusResponse": aios_orchestrator_SystemStatusResponse,
  "aios.runtime.InferChunk": aios_runtime_InferChunk,
  "aios.runtime.InferRequest": aios_runtime_InferRequest,
  "aios.runtime.InferResponse": aios_runtime_InferResponse,
  "aios.runtime.LoadModelRequest": aios_runtime_LoadModelRequest,
  "aios.runtime.ModelList": aios_runtime_ModelList,
  "aios.runtime.ModelStatus": aios_runtime_ModelStatus,
  "aios.runtime.UnloadModelRequest": aios_runtime_UnloadModelRequest,
  "aios.tools.DeregisterToolRequest": aios_tools_DeregisterToolRequest,
  "aios.tools.ExecuteRequest": aios_tools_ExecuteRequest,
  "aios.tools.ExecuteResponse": aios_tools_ExecuteResponse,
  "aios.tools.GetToolRequest": aios_tools_GetToolRequest,
  "aios.tools.ListToolsRequest": aios_tools_ListToolsRequest,
  "aios.tools.ListToolsResponse": aios_tools_ListToolsResponse,
  "aios.tools.RegisterToolRequest": aios_tools_RegisterToolRequest,
  "aios.tools.RegisterToolResponse": aios_tools_RegisterToolResponse,
  "aios.tools.RollbackRequest": aios_tools_RollbackRequest,
  "aios.tools.RollbackResponse": aios_tools_RollbackResponse,
  "aios.tools.Status": aios_tools_Status,
  "aios.tools.ToolDefinition": aios_tools_ToolDefinitionDefinition,
  "beamline.flow.v1.AdminPolicy": beamline_flow_v1_AdminPolicy,
  "beamline.flow.v1.AdminProvider": beamline_flow_v1_AdminProvider,
  "beamline.flow.v1.AdminRule": beamline_flow_v1_AdminRule,
  "beamline.flow.v1.BackpressureMetrics": beamline_flow_v1_BackpressureMetrics,
  "beamline.flow.v1.BackpressurePolicy": beamline_flow_v1_BackpressurePolicy,
  "beamline.flow.v1.BackpressureStatus": beamline_flow_v1_BackpressureStatus,
  "beamline.flow.v1.BackpressureThresholds": beamline_flow_v1_BackpressureThresholds,
  "beamline.flow.v1.CheckpointStatus": beamline_flow_v1_CheckpointStatus,
  "beamline.flow.v1.CircuitBreakerState": beamline_flow_v1_CircuitBreakerState,
  "beamline.flow.v1.DeletePolicyRequest": beamline_flow_v1_DeletePolicyRequest,
  "beamline.flow.v1.DeletePolicyResponse": beamline_flow_v1_DeletePolicyResponse,
  "beamline.flow.v1.DryRunPipelineRequest": beamline_flow_v1_DryRunPipelineRequest,
  "beamline.flow.v1.DryRunPipelineResponse": beamline_flow_v1_DryRunPipelineResponse,
  "beamline.flow.v1.DryRunPipelineResult": beamline_flow_v1_DryRunPipelineResult,
  "beamline.flow.v1.ExecutedExtension": beamline_flow_v1_ExecutedExtension,
  "beamline.flow.v1.ExtensionHealth": beamline_flow_v1_ExtensionHealth,
  "beamline.flow.v1.GetBackpressureStatusRequest": beamline_flow_v1_GetBackpressureStatusRequest,
  "beamline.flow.v1.GetBackpressureStatusResponse": beamline_flow_v1_GetBackpressureStatusResponse,
  "beamline.flow.v1.GetCheckpointStatusRequest": beamline_flow_v1_GetCheckpointStatusRequest,
  "beamline.flow.v1.GetCheckpointStatusResponse": beamline_flow_v1_GetCheckpointStatusResponse,
  "beamline.flow.v1.GetCircuitBreakerStatesRequest": beamline_flow_v1_GetCircuitBreakerStatesRequest,
  "beamline.flow.v1.GetCircuitBreakerStatesResponse": beamline_flow_v1_GetCircuitBreakerStatesResponse,
  "beamline.flow.v1.GetDecisionRequest": beamline_flow_v1_GetDecisionRequest,
  "beamline.flow.v1.GetExtensionHealthRequest": beamline_flow_v1_GetExtensionHealthRequest,
  "beamline.flow.v1.GetExtensionHealthResponse": beamline_flow_v1_GetExtensionHealthResponse,
  "beamline.flow.v1.GetPipelineComplexityRequest": beamline_flow_v1_GetPipelineComplexityRequest,
  "beamline.flow.v1.GetPipelineComplexityResponse": beamline_flow_v1_GetPipelineComplexityResponse,
  "beamline.flow.v1.GetPolicyRequest": beamline_flow_v1_GetPolicyRequest,
  "beamline.flow.v1.GetPolicyResponse": beamline_flow_v1_GetPolicyResponse,
  "beamline.flow.v1.GetValidatorsHealthRequest": beamline_flow_v1_GetValidatorsHealthRequest,
  "beamline.flow.v1.GetValidatorsHealthResponse": beamline_flow_v1_GetValidatorsHealthResponse,
  "beamline.flow.v1.ListPoliciesRequest": beamline_flow_v1_ListPoliciesRequest,
  "beamline.flow.v1.ListPoliciesResponse": beamline_flow_v1_ListPoliciesResponse,
  "beamline.flow.v1.Message": beamline_flow_v1_Message,
  "beamline.flow.v1.PipelineComplexity": beamline_flow_v1_PipelineComplexity,
  "beamline.flow.v1.PipelineLimits": beamline_flow_v1_PipelineLimits,
  "beamline.flow.v1.RouteDecision": beamline_flow_v1_RouteDecision,
  "beamline.flow.v1.RouteRequest": beamline_flow_v1_RouteRequest,
  "beamline.flow.v1.UpsertPolicyRequest": beamline_flow_v1_UpsertPolicyRequest,
  "beamline.flow.v1.UpsertPolicyResponse": beamline_flow_v1_UpsertPolicyResponse,
  "beamline.flow.v1.ValidatorStatus": beamline_flow_v1_ValidatorStatus,
  "beamline.provider.v1.ProviderRequest": beamline_provider_v1_ProviderRequest,
  "beamline.provider.v1.ProviderResponse": beamline_provider_v1_ProviderResponse,
  "beamline.provider.v1.StreamChunk": beamline_provider_v1_StreamChunk,
  "beamline.worker.v1.Alert": beamline_worker_v1_Alert,
  "beamline.worker.v1.AssignmentJob": beamline_worker_v1_AssignmentJob,
  "beamline.worker.v1.Correlation": beamline_worker_v1_Correlation,
  "beamline.worker.v1.ExecAssignment": beamline_worker_v1_ExecAssignment,
  "beamline.worker.v1.ExecAssignmentAck": beamline_worker_v1_ExecAssignmentAck,
  "beamline.worker.v1.ExecOptions": beamline_worker_v1_ExecOptions,
  "beamline.worker.v1.ExecResult": beamline_worker_v1_ExecResult,
  "beamline.worker.v1.Executor": beamline_worker_v1_Executor,
  "beamline.worker.v1.Job": beamline_worker_v1_Job,
  "beamline.worker.v1.RetryOptions": beamline_worker_v1_RetryOptions,
  "beamline.worker.v1.UsageEvent": beamline_worker_v1_UsageEvent,
  "beamline.worker.v1.WorkerHeartbeat": beamline_worker_v1_WorkerHeartbeat,
  "beamline.worker.v1.WorkerResources": beamline_worker_v1_WorkerResources,
  "google.protobuf.Empty": google_protobuf_Empty,
  "openwop.v1.BulkCancelRunResult": openwop_v1_BulkCancelRunResult,
  "openwop.v1.BulkCancelRunsRequest": openwop_v1_BulkCancelRunsRequest,
  "openwop.v1.BulkCancelRunsResponse": openwop_v1_BulkCancelRunsResponse,
  "openwop.v1.CancelRunRequest": openwop_v1_CancelRunRequest,
  "openwop.v1.CancelRunResponse": openwop_v1_CancelRunResponse,
  "openwop.v1.CreateRunRequest": openwop_v1_CreateRunRequest,
  "openwop.v1.CreateRunResponse": openwop_v1_CreateRunResponse,
  "openwop.v1.ForkRunRequest": openwop_v1_ForkRunRequest,
  "openwop.v1.ForkRunResponse": openwop_v1_ForkRunResponse,
  "openwop.v1.GetArtifactRequest": openwop_v1_GetArtifactRequest,
  "openwop.v1.GetArtifactResponse": openwop_v1_GetArtifactResponse,
  "openwop.v1.GetCapabilitiesRequest": openwop_v1_GetCapabilitiesRequest,
  "openwop.v1.GetCapabilitiesResponse": openwop_v1_GetCapabilitiesResponse,
  "openwop.v1.GetRunRequest": openwop_v1_GetRunRequest,
  "openwop.v1.GetRunResponse": openwop_v1_GetRunResponse,
  "openwop.v1.GetWorkflowRequest": openwop_v1_GetWorkflowRequest,
  "openwop.v1.GetWorkflowResponse": openwop_v1_GetWorkflowResponse,
  "openwop.v1.InspectInterruptByTokenRequest": openwop_v1_InspectInterruptByTokenRequest,
  "openwop.v1.InspectInterruptResponse": openwop_v1_InspectInterruptResponse,
  "openwop.v1.PauseRunRequest": openwop_v1_PauseRunRequest,
  "openwop.v1.PauseRunResponse": openwop_v1_PauseRunResponse,
  "openwop.v1.RegisterWebhookRequest": openwop_v1_RegisterWebhookRequest,
  "openwop.v1.RegisterWebhookResponse": openwop_v1_RegisterWebhookResponse,
  "openwop.v1.ResolveInterruptByRunRequest": openwop_v1_ResolveInterruptByRunRequest,
  "openwop.v1.ResolveInterruptByTokenRequest": openwop_v1_ResolveInterruptByTokenRequest,
  "openwop.v1.ResolveInterruptResponse": openwop_v1_ResolveInterruptResponse,
  "openwop.v1.ResumeRunRequest": openwop_v1_ResumeRunRequest,
  "openwop.v1.ResumeRunResponse": openwop_v1_ResumeRunResponse,
  "openwop.v1.RunEventEnvelope": openwop_v1_RunEventEnvelope,
  "openwop.v1.StreamRunEventsRequest": openwop_v1_StreamRunEventsRequest,
  "openwop.v1.UnregisterWebhookRequest": openwop_v1_UnregisterWebhookRequest,
  "openwop.v1.VerifyAuditLogRequest": openwop_v1_VerifyAuditLogRequest,
  "openwop.v1.VerifyAuditLogResponse": openwop_v1_VerifyAuditLogResponse,
} as const;
